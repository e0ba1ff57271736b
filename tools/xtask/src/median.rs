//! Medians of the JSON objects that several runs of one measurement give.

use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Field by field the median of the runs' numbers, the mean of the two middle ones where they are even in number; a
/// field named `max` is the maximum, and each ratio has its least and largest value beside it, as `NAME_spread`. A number
/// that a run does not have was zero there; one that is null could not be measured and is left out. Anything else is the
/// first run's. Null for no runs.
pub(crate) fn of(runs: &[Value]) -> Value {
    let first = runs.iter().find(|run| !run.is_null()).unwrap_or(&Value::Null);
    match first {
        Value::Object(_) => {
            let objects: Vec<&Map<String, Value>> = runs.iter().filter_map(Value::as_object).collect();
            let names: BTreeSet<&String> = objects.iter().flat_map(|object| object.keys()).collect();
            let mut medians = Map::new();
            for name in names {
                let is_number = objects.iter().any(|object| object.get(name).is_some_and(Value::is_number));
                let absent = if is_number { json!(0) } else { Value::Null };
                let column: Vec<Value> =
                    objects.iter().map(|object| object.get(name).unwrap_or(&absent).clone()).collect();
                let numbers = sorted(&column);
                match (name.as_str(), numbers.first(), numbers.last()) {
                    ("max", _, Some(max)) => _ = medians.insert(name.clone(), (*max).clone()),
                    (_, Some(min), Some(max)) if name.contains("ratio") && numbers.len() > 1 => {
                        medians.insert(format!("{name}_spread"), json!([min, max]));
                        medians.insert(name.clone(), middle(&numbers));
                    }
                    _ => _ = medians.insert(name.clone(), of(&column)),
                }
            }
            Value::Object(medians)
        }
        Value::Number(_) => middle(&sorted(runs)),
        other => other.clone(),
    }
}

fn sorted(values: &[Value]) -> Vec<&Value> {
    let mut numbers: Vec<&Value> = values.iter().filter(|value| value.is_number()).collect();
    numbers.sort_by(|a, b| number(a).total_cmp(&number(b)));
    numbers
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

/// Of a list in order that is not empty.
fn middle(numbers: &[&Value]) -> Value {
    let (low, high) = (numbers[(numbers.len() - 1) / 2], numbers[numbers.len() / 2]);
    if low == high {
        return low.clone();
    }
    json!(((number(low) + number(high)) * 500.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_by_field() {
        let runs = [
            json!({ "a": 9, "b": { "p50": 1.5, "max": 7.5 }, "c": null, "d": "x" }),
            json!({ "a": 1, "b": { "p50": 3.5, "max": 9.5 }, "c": null, "d": "x" }),
            json!({ "a": 5, "b": { "p50": 2.5, "max": 1.5 }, "c": null, "d": "x" }),
        ];
        assert_eq!(of(&runs), json!({ "a": 5, "b": { "p50": 2.5, "max": 9.5 }, "c": null, "d": "x" }));
        assert_eq!(of(&[]), Value::Null);
    }

    #[test]
    fn two_runs_have_a_mean_and_a_ratio_tells_how_far_it_may_be_trusted() {
        let runs = [json!({ "us": 2, "p99_ratio": 1.5 }), json!({ "us": 5, "p99_ratio": 0.8 })];
        assert_eq!(of(&runs), json!({ "us": 3.5, "p99_ratio": 1.15, "p99_ratio_spread": [0.8, 1.5] }));
    }

    #[test]
    fn what_a_run_does_not_have_was_zero_there_and_what_is_null_was_not_measured() {
        let runs = [
            json!({ "counted": {}, "p99": null }),
            json!({ "counted": { "floods": 8 }, "p99": 4 }),
            json!({ "counted": { "floods": 6, "busy": 1 }, "p99": 6 }),
        ];
        assert_eq!(of(&runs), json!({ "counted": { "floods": 6, "busy": 0 }, "p99": 5.0 }));
    }
}
