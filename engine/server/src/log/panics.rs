//! What a panic says goes the way of the log: whoever panics must not wait for who reads standard error, for only then
//! is the node told to stop.

use super::{FORMAT, QUEUE, json};
use crate::config::LogFormat;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::thread;
use std::time::Duration;

/// How long a panic waits until it is written out: the process may end with it.
const WAIT: Duration = Duration::from_millis(200);

/// From now on panics are told by the log, once it has started.
pub(super) fn tell() {
    panic::set_hook(Box::new(|info| {
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        QUEUE.push(line(info, backtrace).as_bytes());
        QUEUE.wait_until_written(WAIT);
    }));
}

/// Who panicked, where and why, in the log's form.
fn line(info: &PanicHookInfo<'_>, backtrace: Option<String>) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    let text = format!("thread {name} {info}");
    let line = match FORMAT.get() {
        Some(LogFormat::Json) => {
            let fields = serde_json::json!({ "message": text, "backtrace": backtrace });
            json::line("ERROR", "tern", &fields)
        }
        _ => format!("tern: {text}\n{}", backtrace.unwrap_or_default()).trim_end().into(),
    };
    line + "\n"
}
