//! Accounts: make many, list by pages, remove one.

use super::plane::Plane;
use super::reply::Refusal;
use crate::data::from_hex;
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};
use std::sync::Arc;
use tern_core::control::{AccountInfo, ControlReply, ControlRequest, Created, NewAccount};
use tern_protocol::ids::{AccountId, ShardId};
use tern_protocol::phone::valid_name;

/// Accounts of one request.
const ACCOUNTS_MAX: usize = 50_000;
/// Accounts that one control request carries to a shard: a step of the shard's works through it in one go.
const CHUNK: usize = 256;
/// Accounts of one page.
const PAGE_MAX: u32 = 10_000;

/// Body of `POST /v1/accounts`.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateBody {
    accounts: Vec<AccountBody>,
}

/// One account to make.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct AccountBody {
    name: String,
    /// Public keys of its devices, 64 hex digits each.
    device_keys: Vec<String>,
}

/// Answer to `POST /v1/accounts`, in the order of the request.
#[derive(Serialize, Debug)]
pub(super) struct Results {
    results: Vec<Option<Made>>,
}

/// What became of one account.
#[derive(Clone, Serialize, Debug)]
struct Made {
    name: String,
    result: &'static str,
    /// The account's id as a decimal string, where there is one.
    #[serde(serialize_with = "decimal")]
    id: Option<AccountId>,
}

fn decimal<S: Serializer>(id: &Option<AccountId>, serializer: S) -> Result<S::Ok, S::Error> {
    match id {
        Some(id) => serializer.collect_str(&id.0),
        None => serializer.serialize_none(),
    }
}

impl Made {
    fn of(name: String, created: Created) -> Self {
        let (result, id) = match created {
            Created::New(id) => ("created", Some(id)),
            Created::Existing(id) => ("existing", Some(id)),
            Created::Taken => ("taken", None),
            Created::BadName => ("bad_name", None),
            Created::BadKeys => ("bad_keys", None),
            Created::Full => ("full", None),
            Created::LogFull => ("log_full", None),
        };
        Self { name, result, id }
    }
}

/// `POST /v1/accounts`: makes accounts; answers `{"results": [...]}` when all are durable.
pub(super) async fn create(
    State(plane): State<Arc<Plane>>,
    body: Result<Json<CreateBody>, JsonRejection>,
) -> Result<Json<Results>, Refusal> {
    let accounts = body.map_err(|error| Refusal::rejected(error.status(), error.body_text()))?.0.accounts;
    if accounts.len() > ACCOUNTS_MAX {
        let text = format!("{} accounts, allowed: at most {ACCOUNTS_MAX} in one request", accounts.len());
        return Err(Refusal::bad(text));
    }
    let mut results: Vec<Option<Made>> = vec![None; accounts.len()];
    let mut shares: Vec<Vec<(usize, NewAccount)>> = plane.shards().map(|_| Vec::new()).collect();
    for (place, account) in accounts.into_iter().enumerate() {
        match check(account) {
            Ok(account) => {
                let shard = plane.shard_of_name(&account.name)?;
                shares[usize::from(shard.0)].push((place, account));
            }
            Err(made) => results[place] = Some(made),
        }
    }
    // All shards work at once, each through its share in order: a name twice in a request is made once.
    let tasks: Vec<_> = shares
        .into_iter()
        .enumerate()
        .map(|(shard, share)| tokio::spawn(create_share(Arc::clone(&plane), ShardId(shard as u16), share)))
        .collect();
    for task in tasks {
        let share = task.await.map_err(|error| Refusal::unavailable(error.to_string()))??;
        for (place, made) in share {
            results[place] = Some(made);
        }
    }
    Ok(Json(Results { results }))
}

/// Checks what needs no shard.
fn check(account: AccountBody) -> Result<NewAccount, Made> {
    if !valid_name(&account.name) {
        return Err(Made::of(account.name, Created::BadName));
    }
    match account.device_keys.iter().map(|key| from_hex(key)).collect::<Option<Vec<[u8; 32]>>>() {
        Some(device_keys) => Ok(NewAccount { name: account.name, device_keys }),
        None => Err(Made::of(account.name, Created::BadKeys)),
    }
}

async fn create_share(
    plane: Arc<Plane>,
    shard: ShardId,
    share: Vec<(usize, NewAccount)>,
) -> Result<Vec<(usize, Made)>, Refusal> {
    let mut made = Vec::with_capacity(share.len());
    let mut share = share.into_iter();
    while share.len() > 0 {
        let chunk = share.by_ref().take(CHUNK);
        let (names, accounts): (Vec<_>, Vec<_>) =
            chunk.map(|(place, account)| ((place, account.name.clone()), account)).unzip();
        match plane.ask(shard, ControlRequest::CreateAccounts(accounts)).await? {
            ControlReply::Created(list) if list.len() == names.len() => {
                let pairs = names.into_iter().zip(list);
                made.extend(pairs.map(|((place, name), one)| (place, Made::of(name, one))));
            }
            other => return Err(Refusal::unavailable(format!("the shard answered {other:?}"))),
        }
    }
    Ok(made)
}

/// Query of `GET /v1/accounts`.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// The last id of the page before.
    #[serde(default)]
    after: u64,
    /// Accounts of the page.
    #[serde(default = "page_default")]
    limit: u32,
}

fn page_default() -> u32 {
    100
}

/// `GET /v1/accounts`: a page in the order of ids; `next` is the `after` of the page that follows, or null.
pub(super) async fn list(
    State(plane): State<Arc<Plane>>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let Page { after, limit } = page.map_err(|error| Refusal::rejected(error.status(), error.body_text()))?.0;
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Refusal::bad(format!("limit = {limit}, allowed: 1 to {PAGE_MAX}")));
    }
    let mut accounts: Vec<AccountInfo> = Vec::new();
    // Shards in their order are ids in theirs: an id begins with its partition, and a shard has partitions side by side
    // (`PartitionMap::even`). So the first ones that have a page have it.
    for shard in plane.shards() {
        // By bounded steps.
        let mut after = AccountId(after);
        while accounts.len() < limit as usize {
            let left = limit - accounts.len() as u32;
            let (list, next) =
                match plane.ask(shard, ControlRequest::ListAccounts { after, limit: left }).await? {
                    ControlReply::Accounts { list, next } => (list, next),
                    other => return Err(Refusal::unavailable(format!("the shard answered {other:?}"))),
                };
            accounts.extend(list);
            let Some(next) = next else { break };
            after = next;
        }
    }
    debug_assert!(accounts.is_sorted_by_key(|account| account.id), "shards in their order");
    let more = accounts.len() >= limit as usize;
    let next = accounts.last().filter(|_| more).map(|account| account.id.0.to_string());
    let accounts: Vec<Value> = accounts.iter().map(to_json).collect();
    Ok(Json(json!({ "accounts": accounts, "next": next })))
}

fn to_json(account: &AccountInfo) -> Value {
    json!({
        "id": account.id.0.to_string(),
        "name": account.name,
        "devices": account.devices.iter().map(|device| device.0).collect::<Vec<_>>(),
        "online": account.online_count,
        "waiting": account.mailbox_count,
    })
}

/// `DELETE /v1/accounts/{name}`: removes the account, its mailbox and its sessions; answers when that is durable.
pub(super) async fn remove(
    State(plane): State<Arc<Plane>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Refusal> {
    let name = name.map_err(|error| Refusal::rejected(error.status(), error.body_text()))?.0;
    if !valid_name(&name) {
        return Err(Refusal::bad(format!("{name:?} is not a name")));
    }
    let shard = plane.shard_of_name(&name)?;
    match plane.ask(shard, ControlRequest::RemoveAccount { name: name.clone() }).await? {
        ControlReply::Removed(true) => Ok(Json(json!({ "removed": name }))),
        ControlReply::Removed(false) => Err(Refusal::missing(format!("no account {name}"))),
        other => Err(Refusal::unavailable(format!("the shard answered {other:?}"))),
    }
}
