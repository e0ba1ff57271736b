//! The account at the end: what became of every message.

use serde_json::{Value, json};

/// The fields that count faults; all must be zero.
const FAULTS: [&str; 5] = ["lost", "duplicated", "misordered", "misdelivered", "early_ticks"];

/// The fields of `server` about the talk's traffic.
const LOST_BY_THE_KILL: [&str; 4] =
    ["cpu_user_us_per_msg", "cpu_system_us_per_msg", "log_bytes_written", "log_commits"];

/// The generator's reports, and how long the server was away.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) talk: Value,
    pub(super) absent: Value,
    pub(super) flap: Value,
    pub(super) storm: Value,
    pub(super) attack: Attack,
    /// From the start of the process after the kill to its ready line.
    pub(super) restart_ms: u64,
}

/// The same talk without hostile clients and beside them.
#[derive(Clone, Debug)]
pub(super) struct Attack {
    pub(super) quiet: Value,
    pub(super) attacked: Value,
    /// Hostile connections.
    pub(super) connected: u64,
    /// The server's counters that tell of them, and what they gained.
    pub(super) refused: Vec<(&'static str, u64)>,
}

impl Attack {
    /// The server's counters together.
    fn refused_count(&self) -> u64 {
        self.refused.iter().map(|(_, count)| count).sum()
    }

    fn json(&self) -> Value {
        let counted: serde_json::Map<String, Value> =
            self.refused.iter().map(|(name, count)| ((*name).to_string(), json!(count))).collect();
        json!({
            "quiet_latency_us": self.quiet["latency_us"],
            "latency_us": self.attacked["latency_us"],
            "connections": self.connected,
            "counted": counted,
        })
    }
}

impl Account {
    /// One object for all parts: faults added up; other fields from the talk, and what it has not, from the others.
    /// What the server used for the talk's messages is not known: SIGKILL took with it what the first of the two processes
    /// had used since it was last asked, up to a second of a few, and so the sum of both would tell too little.
    pub(super) fn json(&self) -> Value {
        let mut all = self.talk.clone();
        let Some(fields) = all.as_object_mut() else { return all };
        for part in [&self.absent, &self.flap, &self.storm, &self.attack.quiet, &self.attack.attacked] {
            // Where nothing was sent, nothing can be lost: `lost` is null then.
            let sent_nothing = part["sent"].as_u64().unwrap_or(0) == 0;
            let has_none_to_lose = sent_nothing && part.get("lost") == Some(&Value::Null);
            for (name, value) in fields.iter_mut() {
                let other = &part[name];
                if name == "lost" && has_none_to_lose {
                    continue;
                }
                if FAULTS.contains(&name.as_str()) {
                    *value = value.as_u64().zip(other.as_u64()).map(|(a, b)| a + b).into();
                } else if value.is_null() {
                    *value = other.clone();
                }
            }
        }
        if let Some(server) = fields.get_mut("server").and_then(Value::as_object_mut) {
            server
                .iter_mut()
                .filter(|(name, _)| LOST_BY_THE_KILL.contains(&name.as_str()))
                .for_each(|(_, value)| *value = Value::Null);
        }
        fields.insert("restart_ms".into(), json!(self.restart_ms));
        fields.insert("attack".into(), self.attack.json());
        fields.insert("storm".into(), self.storm["resumed"].clone());
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
        let Self { talk, absent, flap, storm, attack, restart_ms } = self;
        let resumed = &storm["resumed"];
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
            format!(
                "storm:   all {} phones dropped at once and were back after {} s, {} by ticket",
                storm["phones"], resumed["all_back_s"], resumed["by_ticket"]
            ),
            format!(
                "attack:  {}, p99 {} beside {} hostile connections ({} refusals counted), {} without",
                flow(&attack.attacked),
                micros(&attack.attacked["latency_us"]["p99"]),
                attack.connected,
                attack.refused_count(),
                micros(&attack.quiet["latency_us"]["p99"])
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
pub(super) fn micros(value: &Value) -> String {
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
        let (mut absent, mut flap, mut storm) = (part(0, 7), part(0, 9), part(0, 0));
        storm["lost"] = Value::Null;
        storm["phones"] = json!(20);
        storm["resumed"] = json!({ "all_back_s": 1.2, "by_ticket": 19 });
        let (mut quiet, mut attacked) = (part(0, 3), part(0, 4));
        quiet["latency_us"] = json!({ "p99": 400.0 });
        attacked["latency_us"] = json!({ "p99": 500.0 });
        let refused = vec![("protocol_errors", 6), ("tickets_refused", 5)];
        let attack = Attack { quiet, attacked, connected: 12, refused };
        absent["stored_per_s"] = json!(10.5);
        flap["flaps"] = json!(44);
        Account { talk: part(0, 5), absent, flap, storm, attack, restart_ms: 210 }
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
        assert_eq!(
            (&all["attack"]["counted"]["tickets_refused"], &all["storm"]["by_ticket"]),
            (&json!(5), &json!(19))
        );
    }

    #[test]
    fn what_a_killed_server_used_is_not_told() {
        let mut account = account();
        account.talk["server"] = json!({
            "cpu_user_us_per_msg": 4.0, "cpu_system_us_per_msg": 9.0, "cpu_us_per_login": 110.0,
            "rss_bytes": 5, "rss_bytes_per_phone": null, "log_bytes_written": 6, "log_commits": 7,
        });
        account.flap["server"] = json!({ "cpu_user_us_per_msg": 80.0, "rss_bytes": 8 });
        let expected = json!({
            "cpu_user_us_per_msg": null, "cpu_system_us_per_msg": null, "cpu_us_per_login": 110.0,
            "rss_bytes": 5, "rss_bytes_per_phone": null, "log_bytes_written": null, "log_commits": null,
        });
        assert_eq!(account.json()["server"], expected);
    }

    #[test]
    fn a_fault_is_found_also_where_it_is_not_told() {
        assert_eq!(account().fault(), None);
        let mut lost = account();
        lost.absent["lost"] = json!(2);
        assert_eq!(lost.fault(), Some(("lost", json!(2))));
        let mut attacked = account();
        attacked.attack.attacked["lost"] = Value::Null;
        assert_eq!(attacked.fault(), Some(("lost", Value::Null)), "only who sent nothing need not say it");
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
        assert!(
            lines[4].contains("all 20 phones") && lines[4].contains("after 1.2 s, 19 by ticket"),
            "{lines:?}"
        );
        assert!(lines[5].contains("p99 500 us beside 12 hostile connections (11 refusals"), "{lines:?}");
        assert!(lines[5].ends_with("400 us without"), "{lines:?}");
        account.talk["delivered"] = json!(4);
        assert!(account.lines()[0].contains("5 sent, 5 ticked, 4 delivered"));
    }
}
