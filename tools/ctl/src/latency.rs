//! What buckets of durations say, and how it is written.

/// Durations that half, and 99 of 100, stay below; none if there was nothing.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub(crate) struct Percentiles {
    pub(crate) p50_ns: Option<f64>,
    pub(crate) p99_ns: Option<f64>,
}

impl Percentiles {
    /// Of the counts of buckets with these upper bounds; the last count is of what is above all bounds.
    pub(crate) fn of(bounds_ns: &[u64], counts: &[u64]) -> Self {
        Self { p50_ns: quantile(bounds_ns, counts, 0.5), p99_ns: quantile(bounds_ns, counts, 0.99) }
    }
}

/// As Prometheus reckons it: durations lie evenly in their bucket. What is above all bounds counts as the last bound.
fn quantile(bounds_ns: &[u64], counts: &[u64], part: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let wanted = part * total as f64;
    let (mut below, mut lower_ns) = (0.0, 0.0);
    for (&bound_ns, &count) in bounds_ns.iter().zip(counts) {
        let (bound_ns, count) = (bound_ns as f64, count as f64);
        if count > 0.0 && below + count >= wanted {
            return Some(lower_ns + (bound_ns - lower_ns) * (wanted - below) / count);
        }
        below += count;
        lower_ns = bound_ns;
    }
    Some(lower_ns)
}

/// At most six characters.
pub(crate) fn duration(ns: Option<f64>) -> String {
    let Some(ns) = ns else { return "-".into() };
    match ns {
        ..1e3 => format!("{ns:.0}ns"),
        ..1e6 => format!("{:.0}us", ns / 1e3),
        ..1e8 => format!("{:.1}ms", ns / 1e6),
        ..1e9 => format!("{:.0}ms", ns / 1e6),
        _ => format!("{:.1}s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_evenly_in_their_bucket() {
        let bounds = [10, 20, 40];
        assert_eq!(quantile(&bounds, &[0, 0, 0, 0], 0.5), None);
        assert_eq!(quantile(&bounds, &[0, 10, 0, 0], 0.5), Some(15.0));
        assert_eq!(quantile(&bounds, &[5, 0, 5, 0], 0.5), Some(10.0));
        assert_eq!(quantile(&bounds, &[5, 0, 5, 0], 0.99).map(f64::round), Some(40.0));
        assert_eq!(quantile(&bounds, &[0, 0, 0, 7], 0.5), Some(40.0), "above all bounds");
    }

    #[test]
    fn short_forms() {
        let durations = [2.0, 1500.0, 2.5e6, 2.5e8, 3e9].map(|ns| duration(Some(ns)));
        assert_eq!(durations, ["2ns", "2us", "2.5ms", "250ms", "3.0s"]);
        assert_eq!(duration(None), "-");
    }
}
