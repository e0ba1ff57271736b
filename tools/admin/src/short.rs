//! Numbers in a few characters, for screens.

/// At most six characters: 9870, 12.3k, 4.56M.
pub fn count(value: f64) -> String {
    if value < 10_000.0 {
        return format!("{value:.0}");
    }
    scaled(value, 1000.0, &["", "k", "M", "G", "T"])
}

/// Three digits and the unit.
pub fn bytes(value: f64) -> String {
    scaled(value, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// At most six characters; `-` if there is none.
pub fn duration(ns: Option<f64>) -> String {
    let Some(ns) = ns else { return "-".into() };
    match ns {
        ..1e3 => format!("{ns:.0}ns"),
        ..1e6 => format!("{:.0}us", ns / 1e3),
        ..1e8 => format!("{:.1}ms", ns / 1e6),
        ..1e9 => format!("{:.0}ms", ns / 1e6),
        _ => format!("{:.1}s", ns / 1e9),
    }
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 100.0) + usize::from(unit > 0 && value < 10.0);
    format!("{value:.digits$}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms() {
        let counts = [0.0, 999.0, 9999.0, 12_345.0, 123_456.0, 4_560_000.0].map(count);
        assert_eq!(counts, ["0", "999", "9999", "12.3k", "123k", "4.56M"]);
        assert_eq!([512.0, 1024.0, 1e12].map(bytes), ["512B", "1.00KiB", "931GiB"]);
        let durations = [2.0, 1500.0, 2.5e6, 2.5e8, 3e9].map(|ns| duration(Some(ns)));
        assert_eq!(durations, ["2ns", "2us", "2.5ms", "250ms", "3.0s"]);
        assert_eq!(duration(None), "-");
    }
}
