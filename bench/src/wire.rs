//! Records of the same sizes as the phone protocol's, with counts in place of what they say.
//!
//! A record's payload begins with two counts and the phone's number; the rest is filler up to the size that the
//! encrypted record would have. From a phone the counts are messages and acknowledged messages, to a phone they are
//! deliveries and pairs of ticks.

use tern_protocol::ids::{AccountId, MessageId};
use tern_protocol::phone::frame::{ClientFrame, ServerFrame};
use tern_protocol::phone::record::{HEADER_BYTES, RecordKind, TAG_BYTES};

/// A name as long as the generator's usual ones.
const NAME: &str = "load-000";

/// What a record says here.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    /// Messages, or deliveries.
    pub(crate) messages: u8,
    /// Acknowledged messages, or pairs of ticks.
    pub(crate) answers: u8,
    /// Whose record it is.
    pub(crate) phone: u32,
}

/// Bytes of each frame, of the real encoder's making.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameSizes {
    send: usize,
    acknowledgement: usize,
    deliver: usize,
    ticks: usize,
}

impl FrameSizes {
    /// For bodies of so many bytes.
    pub(crate) fn new(body_bytes: usize) -> Self {
        let (account, id, body) = (AccountId(1), MessageId(1), vec![0; body_bytes]);
        let of_client = |frame: ClientFrame<'_>| {
            let mut out = Vec::new();
            frame.encode(&mut out);
            out.len()
        };
        let of_server = |frame: ServerFrame<'_>| {
            let mut out = Vec::new();
            frame.encode(&mut out);
            out.len()
        };
        let deliver =
            ServerFrame::Deliver { number: 1, from: account, id, time_s: 0, from_name: NAME, body: &body };
        Self {
            send: of_client(ClientFrame::Send { to: account, id, body: &body }),
            acknowledgement: of_client(ClientFrame::Ack { number: 1 }),
            deliver: of_server(deliver),
            ticks: of_server(ServerFrame::Sent { id })
                + of_server(ServerFrame::Delivered { number: 1, by: account, id, time_s: 0 }),
        }
    }

    /// Appends a phone's record. `acknowledges`: it has an acknowledgement frame.
    pub(crate) fn phone_record(&self, counts: Counts, acknowledges: bool, out: &mut Vec<u8>) {
        let frames_bytes =
            usize::from(counts.messages) * self.send + usize::from(acknowledges) * self.acknowledgement;
        append(counts, frames_bytes, out);
    }

    /// Appends a record to a phone.
    pub(crate) fn server_record(&self, counts: Counts, out: &mut Vec<u8>) {
        let frames_bytes =
            usize::from(counts.messages) * self.deliver + usize::from(counts.answers) * self.ticks;
        append(counts, frames_bytes, out);
    }
}

fn append(counts: Counts, frames_bytes: usize, out: &mut Vec<u8>) {
    let start = out.len();
    let payload_bytes = frames_bytes + TAG_BYTES;
    out.push(RecordKind::Transport as u8);
    out.extend_from_slice(&(payload_bytes as u16).to_le_bytes());
    out.extend_from_slice(&[counts.messages, counts.answers]);
    out.extend_from_slice(&counts.phone.to_le_bytes());
    out.resize(start + HEADER_BYTES + payload_bytes, 0);
}

/// Reads a record's payload.
pub(crate) fn read(payload: &[u8]) -> Counts {
    let phone = payload[2..6].try_into().expect("four bytes");
    Counts { messages: payload[0], answers: payload[1], phone: u32::from_le_bytes(phone) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::phone::record;

    #[test]
    fn records_split_and_read_back_and_have_the_real_sizes() {
        let sizes = FrameSizes::new(128);
        let counts = Counts { messages: 1, answers: 1, phone: 700 };
        let mut out = Vec::new();
        sizes.phone_record(counts, true, &mut out);
        let (_, bytes) = record::split(&out).unwrap().unwrap();
        assert_eq!(bytes, out.len());
        // Header, tag, an acknowledgement (4 + 4) and a message (4 + 8 + 8 and its body).
        assert_eq!(bytes, 3 + 16 + 8 + 20 + 128);
        assert_eq!(read(&out[HEADER_BYTES..]), counts);
    }
}
