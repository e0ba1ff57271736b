//! Lists of hardware threads as people and the kernel write them: `0-3,8`, and hexadecimal masks.

/// One more than the largest number of a hardware thread: what an affinity mask of the C library holds.
pub(crate) const THREADS_MAX: usize = 1024;

/// Reads `0-3,8`, in the order written. White space and a comma at the end of a line are nothing; an empty text is an
/// empty list. None: it is no such list, or a number is 1024 or more.
pub(crate) fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut list = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return None;
        }
        list.extend(first..=last);
    }
    Some(list)
}

fn number(text: &str) -> Option<usize> {
    let text = text.trim();
    // `parse` alone would take a sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&number| digits && number < THREADS_MAX)
}

/// Writes a list so that [`parse_list`] reads the same: three or more that follow each other become a range.
pub(crate) fn format_list(list: &[usize]) -> String {
    let mut parts = Vec::new();
    let mut rest = list;
    while let [first, ..] = rest {
        let run = rest.iter().zip(*first..).take_while(|(thread, expected)| *thread == expected).count();
        let taken = if run >= 3 {
            parts.push(format!("{first}-{}", first + run - 1));
            run
        } else {
            parts.push(first.to_string());
            1
        };
        rest = &rest[taken..];
    }
    parts.join(",")
}

/// Reads a mask of the kernel: groups of 32 bits in hexadecimal, highest first, between commas.
pub(super) fn parse_mask(text: &str) -> Option<Vec<usize>> {
    let mut list = Vec::new();
    for (group, word) in text.trim().rsplit(',').enumerate() {
        let word = u32::from_str_radix(word, 16).ok()?;
        list.extend((0..32).filter(|bit| word >> bit & 1 == 1).map(|bit| group * 32 + bit));
    }
    Some(list)
}

/// Writes such a mask.
pub(super) fn format_mask(list: &[usize]) -> String {
    let group_count = list.iter().max().map_or(1, |most| most / 32 + 1);
    let word = |group: usize| {
        let bits = list.iter().filter(|&&thread| thread / 32 == group);
        bits.fold(0_u32, |word, thread| word | 1 << (thread % 32))
    };
    let mut parts = vec![format!("{:x}", word(group_count - 1))];
    parts.extend((0..group_count - 1).rev().map(|group| format!("{:08x}", word(group))));
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_keep_their_order() {
        assert_eq!(parse_list("8, 2-4,\n 0,\n"), Some(vec![8, 2, 3, 4, 0]));
        assert_eq!(parse_list(""), Some(vec![]));
        assert_eq!(format_list(&[0, 1, 2, 3, 8, 7, 20, 21]), "0-3,8,7,20,21");
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["x", "1-", "-1", "3-1", "1024", "0-99999999999999999999", "+1", "1;2", "1 2"] {
            assert_eq!(parse_list(text), None, "{text}");
        }
    }

    #[test]
    fn masks_have_groups_of_32() {
        assert_eq!(parse_mask("0003,00000000,80000001\n"), Some(vec![0, 31, 64, 65]));
        assert_eq!(format_mask(&[0, 31, 64, 65]), "3,00000000,80000001");
        assert_eq!(format_mask(&[]), "0");
        assert_eq!(parse_mask("xyz"), None);
    }

    proptest! {
        #[test]
        fn lists_are_read_back(list in proptest::collection::vec(0..THREADS_MAX, 0..40)) {
            prop_assert_eq!(parse_list(&format_list(&list)), Some(list));
        }

        #[test]
        fn masks_are_read_back(set in proptest::collection::btree_set(0..THREADS_MAX, 0..40)) {
            let list: Vec<usize> = set.into_iter().collect();
            prop_assert_eq!(parse_mask(&format_mask(&list)), Some(list));
        }
    }
}
