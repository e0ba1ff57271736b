//! Medians of JSON objects that have the same fields.

use serde_json::{Map, Value};

/// Field by field the median of the runs' numbers; anything else is the first run's. Empty for no runs.
pub(crate) fn of(runs: &[Value]) -> Value {
    let Some(first) = runs.first() else { return Value::Null };
    match first {
        Value::Object(fields) => {
            let mut medians = Map::new();
            for name in fields.keys() {
                let column: Vec<Value> = runs.iter().map(|run| run[name].clone()).collect();
                medians.insert(name.clone(), of(&column));
            }
            Value::Object(medians)
        }
        Value::Number(_) => {
            let mut numbers: Vec<&Value> = runs.iter().filter(|value| value.is_number()).collect();
            numbers.sort_by(|a, b| a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)));
            numbers[(numbers.len() - 1) / 2].clone()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn field_by_field() {
        let runs = [
            json!({ "a": 9, "b": { "p50": 1.5 }, "c": null, "d": "x" }),
            json!({ "a": 1, "b": { "p50": 3.5 }, "c": null, "d": "x" }),
            json!({ "a": 5, "b": { "p50": 2.5 }, "c": null, "d": "x" }),
        ];
        assert_eq!(of(&runs), json!({ "a": 5, "b": { "p50": 2.5 }, "c": null, "d": "x" }));
        assert_eq!(of(&[]), Value::Null);
    }
}
