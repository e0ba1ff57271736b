//! Which mailboxes hold most. Shards look in bounded steps; however many ask, one search is under way at a time, and
//! its answer serves all for a moment.

use super::plane::Plane;
use super::reply::Refusal;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tern_core::control::{Busy, ControlReply, ControlRequest, Hot, LookFrom, Looked};
use tern_protocol::ids::ShardId;

/// Mailboxes of each shard that are kept.
const COUNT_MAX: u16 = 50;
/// How long an answer is good.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// Longest search of one shard: a shard with very many messages is not looked through to its end then.
const SEARCH_TIME: Duration = Duration::from_secs(2);

/// The last answer.
#[derive(Clone, Debug)]
pub(super) struct Found {
    at: Instant,
    shards: Vec<OfShard>,
}

/// What was found in one shard.
#[derive(Clone, Debug)]
struct OfShard {
    fullest: Vec<Hot>,
    /// Whether all mailboxes were looked at.
    is_whole: bool,
    busiest: Vec<Busy>,
}

/// Query of `GET /v1/top`.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    /// Mailboxes of each shard.
    #[serde(default = "count_default")]
    count: u16,
}

fn count_default() -> u16 {
    10
}

/// `GET /v1/top`: of each shard the mailboxes with most entries, whether all were looked at, and the accounts that get
/// most messages.
pub(super) async fn top(
    State(plane): State<Arc<Plane>>,
    ask: Result<Query<Ask>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let Ask { count } = ask.map_err(|error| Refusal::rejected(error.status(), error.body_text()))?.0;
    if !(1..=COUNT_MAX).contains(&count) {
        return Err(Refusal::bad(format!("count = {count}, allowed: 1 to {COUNT_MAX}")));
    }
    let mut last = plane.hottest().lock().await;
    let found = match &*last {
        Some(found) if found.at.elapsed() < GOOD_FOR => found,
        _ => {
            let shards = search_all(&plane).await?;
            last.insert(Found { at: Instant::now(), shards })
        }
    };
    let shards: Vec<Value> = found
        .shards
        .iter()
        .enumerate()
        .map(|(shard, found)| {
            let count = usize::from(count);
            let mailboxes: Vec<Value> = found.fullest.iter().take(count).map(to_json).collect();
            let busiest: Vec<Value> = found.busiest.iter().take(count).map(busy_to_json).collect();
            json!({ "shard": shard, "complete": found.is_whole, "mailboxes": mailboxes, "busiest": busiest })
        })
        .collect();
    Ok(Json(json!({ "shards": shards })))
}

fn to_json(hot: &Hot) -> Value {
    json!({
        "id": hot.id.0.to_string(),
        "name": hot.name,
        "entries": hot.entry_count,
        "bytes": hot.bytes,
        "online": hot.is_online,
    })
}

fn busy_to_json(busy: &Busy) -> Value {
    json!({
        "id": busy.id.0.to_string(),
        "name": busy.name,
        "messages_per_s": busy.messages_per_s,
        "entries": busy.entry_count,
        "online": busy.is_online,
    })
}

async fn search_all(plane: &Arc<Plane>) -> Result<Vec<OfShard>, Refusal> {
    let tasks: Vec<_> = plane.shards().map(|shard| tokio::spawn(search(Arc::clone(plane), shard))).collect();
    let mut shards = Vec::new();
    for task in tasks {
        shards.push(task.await.map_err(|error| Refusal::unavailable(error.to_string()))??);
    }
    Ok(shards)
}

/// Steps through one shard.
async fn search(plane: Arc<Plane>, shard: ShardId) -> Result<OfShard, Refusal> {
    let busiest = match plane.ask(shard, ControlRequest::ListBusiest { count: COUNT_MAX }).await? {
        ControlReply::Busiest(busiest) => busiest,
        other => return Err(Refusal::unavailable(format!("the shard answered {other:?}"))),
    };
    let (started, mut from, mut all) = (Instant::now(), LookFrom::default(), Vec::new());
    loop {
        let request = ControlRequest::LookForHottest { from, count: COUNT_MAX };
        let Looked { found, next } = match plane.ask(shard, request).await? {
            ControlReply::Looked(looked) => looked,
            other => return Err(Refusal::unavailable(format!("the shard answered {other:?}"))),
        };
        keep_fullest(&mut all, found);
        match next {
            Some(next) if started.elapsed() < SEARCH_TIME => from = next,
            more => return Ok(OfShard { fullest: all, is_whole: more.is_none(), busiest }),
        }
    }
}

fn keep_fullest(all: &mut Vec<Hot>, more: Vec<Hot>) {
    all.extend(more);
    all.sort_by_key(|hot| std::cmp::Reverse((hot.entry_count, hot.bytes)));
    all.truncate(usize::from(COUNT_MAX));
}
