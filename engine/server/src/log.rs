//! The log on standard error: text or JSON, and warnings that repeat are written a few times a second and counted
//! beyond that, so that a storm fills no drive.

use crate::config::{LogFormat, LogSettings};
use crate::exit::Failure;
use std::collections::HashMap;
use std::fmt;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The stretch of time that repeats are counted in.
const WINDOW: Duration = Duration::from_secs(1);

/// Starts the log. `TERN_LOG` chooses what is written, `TERN_LOG_FORMAT` (over the file) its form.
///
/// # Errors
/// `TERN_LOG_FORMAT` is neither.
pub(crate) fn start(settings: LogSettings) -> Result<(), Failure> {
    let format = match std::env::var("TERN_LOG_FORMAT") {
        Ok(text) => format_named(&text)?,
        Err(_) => settings.format,
    };
    let filter = EnvFilter::try_from_env("TERN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log that cannot be written must not end the node.
        .log_internal_errors(false);
    let limiter = Limiter::new(settings.repeats_per_s);
    match format {
        LogFormat::Text => {
            let inner = Format::default();
            builder.with_ansi(std::io::stderr().is_terminal()).event_format(Calm { inner, limiter }).init();
        }
        LogFormat::Json => {
            let inner = Format::default().json();
            builder.fmt_fields(JsonFields::new()).event_format(CalmJson(Calm { inner, limiter })).init();
        }
    }
    Ok(())
}

fn format_named(text: &str) -> Result<LogFormat, Failure> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(Failure::usage(format!("TERN_LOG_FORMAT = {other}, allowed: text or json"))),
    }
}

/// What becomes of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// Written, after word of so many that were not.
    Written {
        suppressed_count: u64,
    },
    Suppressed,
}

/// Counts the events of each place in the program.
#[derive(Debug)]
struct Limiter {
    each_per_s: u32,
    places: Mutex<HashMap<Identifier, Repeats>>,
}

#[derive(Debug)]
struct Repeats {
    since: Instant,
    written_count: u32,
    suppressed_count: u64,
}

impl Limiter {
    fn new(each_per_s: u32) -> Self {
        Self { each_per_s, places: Mutex::default() }
    }

    /// Places are written in the program's text, so that their number is bounded.
    fn judge(&self, place: Identifier, now: Instant) -> Verdict {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Repeats { since: now, written_count: 0, suppressed_count: 0 };
        let repeats = places.entry(place).or_insert_with(fresh);
        let mut suppressed_count = 0;
        if now.saturating_duration_since(repeats.since) >= WINDOW {
            suppressed_count = std::mem::replace(repeats, fresh()).suppressed_count;
        }
        if repeats.written_count == self.each_per_s {
            repeats.suppressed_count += 1;
            return Verdict::Suppressed;
        }
        repeats.written_count += 1;
        Verdict::Written { suppressed_count }
    }

    fn judge_event(&self, meta: &Metadata<'_>) -> Verdict {
        // What is said on purpose is said; only what goes wrong repeats by itself.
        if *meta.level() > Level::WARN {
            return Verdict::Written { suppressed_count: 0 };
        }
        self.judge(meta.callsite(), Instant::now())
    }
}

/// A format that leaves repeats out.
struct Calm<F> {
    inner: F,
    limiter: Limiter,
}

impl<S, N> FormatEvent<S, N> for Calm<Format>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self.limiter.judge_event(event.metadata()) {
            Verdict::Suppressed => Ok(()),
            Verdict::Written { suppressed_count } => {
                if suppressed_count > 0 {
                    writeln!(out, "suppressed {suppressed_count} more of the next line")?;
                }
                self.inner.format_event(context, out, event)
            }
        }
    }
}

/// The same in JSON.
struct CalmJson(Calm<Format<Json>>);

impl<S> FormatEvent<S, JsonFields> for CalmJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Calm { inner, limiter } = &self.0;
        match limiter.judge_event(event.metadata()) {
            Verdict::Suppressed => Ok(()),
            Verdict::Written { suppressed_count } => {
                if suppressed_count > 0 {
                    let line = serde_json::json!({
                        "level": event.metadata().level().as_str(),
                        "target": event.metadata().target(),
                        "fields": {
                            "message": "suppressed more of the next line",
                            "suppressed_count": suppressed_count,
                        },
                    });
                    writeln!(out, "{line}")?;
                }
                inner.format_event(context, out, event)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::Arc;
    use tracing_subscriber::fmt::MakeWriter;

    /// Two places to be told apart.
    fn two_places() -> [Identifier; 2] {
        use tracing::callsite::Callsite;
        struct Place(u8);
        impl Callsite for Place {
            fn set_interest(&self, _: tracing::subscriber::Interest) {}
            fn metadata(&self) -> &Metadata<'_> {
                unreachable!("place {} has none", self.0)
            }
        }
        static PLACES: [Place; 2] = [Place(0), Place(1)];
        [Identifier(&PLACES[0]), Identifier(&PLACES[1])]
    }

    #[test]
    fn repeats_are_counted_and_told() {
        let (limiter, start) = (Limiter::new(2), Instant::now());
        let [one, other] = two_places();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let written = |suppressed_count| Verdict::Written { suppressed_count };
        assert_eq!(limiter.judge(one.clone(), at(0)), written(0));
        assert_eq!(limiter.judge(one.clone(), at(1)), written(0));
        for ms in 2..10 {
            assert_eq!(limiter.judge(one.clone(), at(ms)), Verdict::Suppressed);
        }
        assert_eq!(limiter.judge(other, at(10)), written(0), "another place has its own count");
        assert_eq!(limiter.judge(one.clone(), at(1000)), written(8));
        assert_eq!(limiter.judge(one.clone(), at(1001)), written(0));
        assert_eq!(limiter.judge(one, at(1002)), Verdict::Suppressed);
    }

    #[derive(Clone, Default)]
    struct Text(Arc<Mutex<Vec<u8>>>);

    impl Write for Text {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Text {
        type Writer = Self;
        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn storm() {
        for turn in 0..2 {
            for shard in 0..50 {
                tracing::warn!(shard, "accepting paused");
            }
            tracing::info!(turn, "still here");
            std::thread::sleep(WINDOW + Duration::from_millis(20));
        }
        for n in 0..50 {
            tracing::info!(n, "said on purpose");
        }
    }

    #[test]
    fn a_storm_of_warnings_is_a_few_lines() {
        let text = Text::default();
        let format = Calm { inner: Format::default(), limiter: Limiter::new(3) };
        let builder = tracing_subscriber::fmt().with_writer(text.clone()).with_ansi(false);
        tracing::subscriber::with_default(builder.event_format(format).finish(), storm);
        let text = String::from_utf8(text.0.lock().unwrap().clone()).unwrap();
        let count = |word: &str| text.lines().filter(|line| line.contains(word)).count();
        assert_eq!((count("accepting paused"), count("still here"), count("said on purpose")), (6, 2, 50));
        assert_eq!(count("suppressed 47 more"), 1, "{text}");
    }

    #[test]
    fn the_same_as_json_lines() {
        let text = Text::default();
        let format = CalmJson(Calm { inner: Format::default().json(), limiter: Limiter::new(3) });
        let builder = tracing_subscriber::fmt().with_writer(text.clone()).fmt_fields(JsonFields::new());
        tracing::subscriber::with_default(builder.event_format(format).finish(), storm);
        let text = String::from_utf8(text.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
            .collect();
        let paused = lines.iter().filter(|line| line["fields"]["message"] == "accepting paused");
        assert_eq!(paused.count(), 6);
        let told = lines.iter().find(|line| line["fields"]["suppressed_count"] == 47).unwrap();
        assert_eq!(told["level"], "WARN");
    }

    #[test]
    fn a_wrong_format_is_named() {
        assert_eq!(format_named("json").unwrap(), LogFormat::Json);
        let text = format_named("xml").unwrap_err().text;
        assert!(text.contains("TERN_LOG_FORMAT = xml") && text.contains("text or json"), "{text}");
    }
}
