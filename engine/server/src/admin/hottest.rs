//! Which mailboxes hold most. Shards look in bounded steps; however many ask, one search is under way at a time, and
//! its answer serves all for a moment. A shard that does not answer holds up nobody: when one is stuck, this is asked.

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
/// Longest search of one shard: one with very many messages is not looked through to its end then, and one that is stuck
/// not at all.
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
    plane.can_ask()?;
    let tasks: Vec<_> = plane.shards().map(|shard| tokio::spawn(search(Arc::clone(plane), shard))).collect();
    let mut shards = Vec::new();
    for task in tasks {
        shards.push(task.await.map_err(|error| Refusal::unavailable(error.to_string()))?);
    }
    Ok(shards)
}

/// Steps through one shard. Of one that does not answer in time, or any more, there is what was found until then.
async fn search(plane: Arc<Plane>, shard: ShardId) -> OfShard {
    let mut found = OfShard { fullest: Vec::new(), is_whole: false, busiest: Vec::new() };
    match tokio::time::timeout(SEARCH_TIME, look_through(&plane, shard, &mut found)).await {
        Ok(Ok(())) => found.is_whole = true,
        Ok(Err(refusal)) => tracing::debug!(shard = shard.0, ?refusal, "the fullest mailboxes"),
        Err(_) => tracing::debug!(shard = shard.0, "the fullest mailboxes: no time to look at all"),
    }
    found
}

async fn look_through(plane: &Plane, shard: ShardId, into: &mut OfShard) -> Result<(), Refusal> {
    into.busiest = match plane.ask(shard, ControlRequest::ListBusiest { count: COUNT_MAX }).await? {
        ControlReply::Busiest(busiest) => busiest,
        other => return Err(Refusal::unavailable(format!("the shard answered {other:?}"))),
    };
    let mut from = LookFrom::default();
    loop {
        let request = ControlRequest::LookForHottest { from, count: COUNT_MAX };
        let Looked { found, next } = match plane.ask(shard, request).await? {
            ControlReply::Looked(looked) => looked,
            other => return Err(Refusal::unavailable(format!("the shard answered {other:?}"))),
        };
        keep_fullest(&mut into.fullest, found);
        match next {
            Some(next) => from = next,
            None => return Ok(()),
        }
    }
}

fn keep_fullest(all: &mut Vec<Hot>, more: Vec<Hot>) {
    all.extend(more);
    all.sort_by_key(|hot| std::cmp::Reverse((hot.entry_count, hot.bytes)));
    all.truncate(usize::from(COUNT_MAX));
}
