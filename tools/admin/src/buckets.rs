//! Durations by bucket, as the endpoint tells them: counts below each of the bounds, and last one of what is above all.

/// Durations that half, and 99 of 100, stay below, nanoseconds; none if there was nothing.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Percentiles {
    /// The median.
    pub p50_ns: Option<f64>,
    /// What one of a hundred takes longer than.
    pub p99_ns: Option<f64>,
}

impl Percentiles {
    /// Of the counts of buckets with these upper bounds.
    pub fn of(bounds_ns: &[u64], counts: &[u64]) -> Self {
        Self { p50_ns: quantile(bounds_ns, counts, 0.5), p99_ns: quantile(bounds_ns, counts, 0.99) }
    }
}

/// What each bucket gained; fewer than before is none: the server was started anew.
pub fn gained(before: &[u64], after: &[u64]) -> Vec<u64> {
    after.iter().zip(before).map(|(after, before)| after.saturating_sub(*before)).collect()
}

/// The duration that a part of all stays below; none if there was nothing. As Prometheus reckons it: durations lie
/// evenly in their bucket, and what is above all bounds counts as the last bound.
pub fn quantile(bounds_ns: &[u64], counts: &[u64], part: f64) -> Option<f64> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_lie_evenly_in_their_bucket() {
        let bounds = [10, 20, 40];
        assert_eq!(quantile(&bounds, &[0, 0, 0, 0], 0.5), None);
        assert_eq!(quantile(&bounds, &[0, 10, 0, 0], 0.5), Some(15.0));
        assert_eq!(quantile(&bounds, &[5, 0, 5, 0], 0.5), Some(10.0));
        assert_eq!(quantile(&bounds, &[5, 0, 5, 0], 0.99).map(f64::round), Some(40.0));
        assert_eq!(quantile(&bounds, &[0, 0, 0, 7], 0.5), Some(40.0), "above all bounds");
        assert_eq!(gained(&[1, 5], &[4, 2]), [3, 0]);
    }
}
