//! The log's own lines in JSON, in the form that its events have there: collectors drop what has no time.

use serde_json::Value;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// A line of now, without its end.
pub(super) fn line(level: &str, target: &str, fields: &Value) -> String {
    let mut time = String::new();
    // The clock that the events have. A text takes all that is written to it.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    serde_json::json!({ "timestamp": time, "level": level, "target": target, "fields": fields }).to_string()
}
