//! What a TOML error means to the person who wrote the file: line, key, value, what is allowed.

use toml::de::Error;

/// One line of text for an error in `text`.
pub(super) fn explain(text: &str, error: &Error) -> String {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..at).unwrap_or_default();
    let line_number = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next().unwrap_or_default().trim();
    // The key is shown with its table, as the texts of other errors name it.
    let shown = match before.lines().filter_map(table_of).next_back() {
        Some(table) if table_of(line).is_none() => format!("{table}.{line}"),
        _ => line.to_string(),
    };
    format!("line {line_number}: {shown}: {}", meaning(error.message()))
}

/// The name in a table's head; none for other lines, such as those of a list that goes over several.
fn table_of(line: &str) -> Option<&str> {
    let (name, rest) = line.trim().strip_prefix('[')?.split_once(']')?;
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
    let rest = rest.trim_start();
    let ends = rest.is_empty() || rest.starts_with('#');
    let name = name.trim();
    (ends && !name.is_empty() && name.chars().all(is_name)).then_some(name)
}

fn meaning(message: &str) -> String {
    let message = message.trim().replace('\n', ", ");
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let mut names = rest.split('`').skip(1).step_by(2);
        let unknown = names.next().unwrap_or_default();
        let known: Vec<&str> = names.collect();
        // Who writes the beginning of a key means that one, however long the rest is.
        let begins = |name: &str| !unknown.is_empty() && name.starts_with(unknown);
        let far = |name: &&&str| (!begins(name), distance(unknown, name));
        let nearest = known.iter().min_by_key(far).copied().unwrap_or("none");
        return format!("unknown key {unknown}, the nearest is {nearest}; allowed: {}", known.join(", "));
    }
    let (found, expected) = message.rsplit_once("expected ").unwrap_or((&message, ""));
    let allowed = match expected.trim() {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, 0 or more",
        "a boolean" => "true or false",
        "a string" | "path string" => "a text in \"quotes\"",
        "a sequence" => "a list in [brackets]",
        _ if message.contains("socket address") => {
            "an address with a port in \"quotes\", such as \"0.0.0.0:7322\""
        }
        _ => return message,
    };
    // What Rust calls the type that it expected says nothing to who wrote the file.
    let found = found.trim_end_matches([',', ' ']).replace(" as i128", "");
    format!("{found}; allowed: {allowed}")
}

/// Letters to insert, remove or change to make one word of the other (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (done, letter) in left.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], done + 1);
        for (index, other) in right.iter().enumerate() {
            let changed = corner + usize::from(letter != *other);
            corner = row[index + 1];
            row[index + 1] = changed.min(corner + 1).min(row[index] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_the_known_ones() {
        for (left, right, letters) in
            [("kitten", "sitting", 3), ("", "abc", 3), ("same", "same", 0), ("window", "window_count", 6)]
        {
            assert_eq!(distance(left, right), letters, "{left} {right}");
            assert_eq!(distance(right, left), letters);
        }
    }

    #[test]
    fn a_line_of_a_list_is_no_table() {
        for (line, table) in [
            ("[limits]", Some("limits")),
            ("  [ limits ]  # mine", Some("limits")),
            ("[\"limits\"]", None),
            ("[7],", None),
            ("[]", None),
            ("limits = []", None),
        ] {
            assert_eq!(table_of(line), table, "{line}");
        }
    }

    #[test]
    fn an_error_shows_its_place() {
        let text = "\n[limits]\n  busy_ms = true # no\n";
        let error = toml::from_str::<super::super::file::ConfigFile>(text).unwrap_err();
        assert_eq!(
            explain(text, &error),
            "line 3: limits.busy_ms = true # no: invalid type: boolean `true`; allowed: a whole number from 0 to \
             4294967295"
        );
        for (text, start) in [
            ("[limits]  # mine\nbusy_ms = true", "line 2: limits.busy_ms = true: "),
            ("[ limits ]\nbusy_ms = true", "line 2: limits.busy_ms = true: "),
            ("phone_proxy = [\n  \"10.0.0.0/8\"]\nshards = true", "line 3: shards = true: "),
            ("[limits]\nbusy_ms = 9\n[cores]\nsteer = 7", "line 4: cores.steer = 7: "),
            ("[limit]", "line 1: [limit]: unknown key limit"),
        ] {
            let error = toml::from_str::<super::super::file::ConfigFile>(text).unwrap_err();
            let told = explain(text, &error);
            assert!(told.starts_with(start), "{text:?} gave {told:?}, not {start:?}");
        }
    }
}
