//! The account at the end: what became of every message.

use serde_json::{Value, json};

/// The fields that count faults; all must be zero.
const FAULTS: [&str; 5] = ["lost", "duplicated", "misordered", "misdelivered", "early_ticks"];

/// The generator's reports, and how long the server was away.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) talk: Value,
    pub(super) absent: Value,
    pub(super) flap: Value,
    /// From the start of the process after the kill to its ready line.
    pub(super) restart_ms: u64,
}

impl Account {
    /// One object for all parts: faults added up; other fields from the talk, and what it has not, from the others.
    pub(super) fn json(&self) -> Value {
        let mut all = self.talk.clone();
        let Some(fields) = all.as_object_mut() else { return all };
        for part in [&self.absent, &self.flap] {
            for (name, value) in fields.iter_mut() {
                let other = &part[name];
                if FAULTS.contains(&name.as_str()) {
                    *value = value.as_u64().zip(other.as_u64()).map(|(a, b)| a + b).into();
                } else if value.is_null() {
                    *value = other.clone();
                }
            }
        }
        fields.insert("restart_ms".into(), json!(self.restart_ms));
        all
    }

    /// The first fault: its field and what it says. A fault that a part does not report is not zero.
    pub(super) fn fault(&self) -> Option<(&'static str, Value)> {
        let all = self.json();
        let faulty = |field: &&str| all[*field].as_u64() != Some(0);
        FAULTS.into_iter().find(|field| faulty(field)).map(|field| (field, all[field].clone()))
    }

    /// For people.
    pub(super) fn lines(&self) -> Vec<String> {
        let Self { talk, absent, flap, restart_ms } = self;
        let tick = &talk["tick_latency_us"];
        vec![
            format!("talk:    {}, {} redelivered after the kill", flow(talk), talk["redelivered"]),
            format!(
                "ticks:   p50 {}, p99 {}, max {}, the server's death included; it was back after {restart_ms} ms",
                micros(&tick["p50"]),
                micros(&tick["p99"]),
                micros(&tick["max"])
            ),
            format!(
                "away:    {}, stored at {}/s, drained at {}/s",
                flow(absent),
                absent["stored_per_s"],
                absent["drained_per_s"]
            ),
            format!(
                "flap:    {}, {} connections dropped, {} logins by ticket",
                flow(flap),
                flap["flaps"],
                flap["resumed"]["by_ticket"]
            ),
        ]
    }
}

/// `N sent = ticked = delivered, 0 lost`, or each number where they differ.
pub(super) fn flow(report: &Value) -> String {
    let [sent, ticked, delivered, lost] = ["sent", "ticked", "delivered", "lost"].map(|name| &report[name]);
    if sent == ticked && ticked == delivered {
        format!("{sent} sent = ticked = delivered, {lost} lost")
    } else {
        format!("{sent} sent, {ticked} ticked, {delivered} delivered, {lost} lost")
    }
}

/// Microseconds in a unit that is read at a glance.
fn micros(value: &Value) -> String {
    match value.as_f64() {
        None => "-".into(),
        Some(us) if us < 1_000.0 => format!("{us:.0} us"),
        Some(us) if us < 100_000.0 => format!("{:.1} ms", us / 1e3),
        Some(us) => format!("{:.0} ms", us / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(lost: u64, sent: u64) -> Value {
        json!({
            "lost": lost, "duplicated": 0, "misordered": 0, "misdelivered": 0, "early_ticks": 0,
            "sent": sent, "ticked": sent, "delivered": sent, "redelivered": 3, "stored_per_s": null, "flaps": null,
        })
    }

    fn account() -> Account {
        let (mut absent, mut flap) = (part(0, 7), part(0, 9));
        absent["stored_per_s"] = json!(10.5);
        flap["flaps"] = json!(44);
        Account { talk: part(0, 5), absent, flap, restart_ms: 210 }
    }

    #[test]
    fn all_parts_in_one_object() {
        let mut account = account();
        (account.talk["lost"], account.flap["lost"]) = (json!(1), json!(2));
        let all = account.json();
        assert_eq!((&all["lost"], &all["sent"]), (&json!(3), &json!(5)));
        assert_eq!(
            (&all["stored_per_s"], &all["flaps"], &all["restart_ms"]),
            (&json!(10.5), &json!(44), &json!(210))
        );
    }

    #[test]
    fn a_fault_is_found_also_where_it_is_not_told() {
        assert_eq!(account().fault(), None);
        let mut lost = account();
        lost.absent["lost"] = json!(2);
        assert_eq!(lost.fault(), Some(("lost", json!(2))));
        let mut silent = account();
        silent.flap.as_object_mut().unwrap().remove("early_ticks");
        assert_eq!(silent.fault(), Some(("early_ticks", Value::Null)));
    }

    #[test]
    fn the_lines_say_what_differs() {
        let mut account = account();
        account.talk["tick_latency_us"] = json!({ "p50": 612.0, "p99": 4_250.0, "max": 251_000.0 });
        let lines = account.lines();
        assert!(
            lines[0].contains("5 sent = ticked = delivered, 0 lost, 3 redelivered after the kill"),
            "{lines:?}"
        );
        assert!(lines[1].contains("p50 612 us, p99 4.2 ms, max 251 ms"), "{lines:?}");
        assert!(lines[1].contains("back after 210 ms"), "{lines:?}");
        account.talk["delivered"] = json!(4);
        assert!(account.lines()[0].contains("5 sent, 5 ticked, 4 delivered"));
    }
}
