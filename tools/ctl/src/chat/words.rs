//! How things are shown: times, ticks, names.

use tern_protocol::hex::to_hex;
use tern_protocol::ids::AccountId;
use tern_protocol::phone::client::ClientError;
use tern_protocol::phone::frame::{DeviceInfo, ErrorCode, GoodbyeReason, PresenceState};

/// What the person may type.
pub(super) const HELP: &str = "/to NAME  talk to NAME; then each line is a message
/who      who and where you are, and how present the other is
/typing   tell the other that you are typing     /away  /here  how present you are
/devices  /add KEYHEX  /revoke N   the devices of this account
/quit";

/// Time of day, UTC: the standard library knows no time zones.
pub(super) fn clock(unix_s: u64) -> String {
    let of_day = unix_s % 86_400;
    format!("{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// An account without a known name.
pub(super) fn number(account: AccountId) -> String {
    format!("account {}", account.0)
}

/// A presence frame in words.
pub(super) fn presence(name: &str, state: PresenceState, seen_s: u32) -> String {
    match (state, seen_s) {
        (PresenceState::Available, _) => format!("{name} is here"),
        (PresenceState::Away, _) => format!("{name} is away"),
        (PresenceState::Offline, 0) => format!("{name} is not connected"),
        (PresenceState::Offline, seen_s) => {
            format!("{name} is not connected, seen {}", clock(seen_s.into()))
        }
    }
}

/// One line of the list of devices.
pub(super) fn device(device: &DeviceInfo) -> String {
    let connected = if device.online { "connected" } else { "not connected" };
    let this = if device.is_this { ", this one" } else { "" };
    format!("device {} {} ({connected}{this})", device.device.0, to_hex(&device.key))
}

/// Why devices were not changed.
pub(super) fn devices_refused(code: ErrorCode) -> String {
    let why = match code {
        ErrorCode::WrongKey => "this is no key".into(),
        ErrorCode::Internal => {
            "not now: the server is about to stop, its drive is nearly full, or you ask too often".into()
        }
        ErrorCode::AccountFull => "the account has as many devices as it can have".into(),
        ErrorCode::UnknownDevice => "the account has no such device; /devices lists them".into(),
        ErrorCode::LastDevice => "an account keeps its last device".into(),
        ErrorCode::TooManyAdded => {
            "the account has added as many devices lately as it may: try again in some hours".into()
        }
        ErrorCode::NumbersUsedUp => {
            "the account has had as many devices as any can have: no other one can be added, ever".into()
        }
        other => format!("{other:?}"),
    };
    format!("the devices stay as they are: {why}")
}

/// Why the server ended a connection in order.
pub(super) fn goodbye(reason: GoodbyeReason) -> &'static str {
    match reason {
        GoodbyeReason::Draining => "the server is about to stop",
        GoodbyeReason::Idle => "the server has heard nothing for too long",
        GoodbyeReason::TooSlow => "the server could not get rid of what it had to say",
        GoodbyeReason::Busy => "the server has too much to do, or you say too much",
        GoodbyeReason::Replaced => "this device has logged in elsewhere",
        GoodbyeReason::Removed => "this device was taken off the account, or the account is gone",
    }
}

/// What it means that the client cannot make sense of what it hears, before and after the session has begun.
pub(super) const fn not_understood(error: &ClientError, is_begun: bool) -> &'static str {
    match error {
        ClientError::Record(_) | ClientError::Unexpected if !is_begun => {
            "who answers there does not speak Tern's protocol: is this the address that `ready` of the server calls phone?"
        }
        ClientError::Handshake => "the handshake failed",
        ClientError::Noise(_) => "what came cannot be decrypted: it was changed on its way",
        ClientError::Record(_) | ClientError::Frame(_) | ClientError::Unexpected => {
            "the server does not keep to the protocol"
        }
    }
}

/// Why the server ended the login or the session, for a person.
pub(super) fn refused(code: ErrorCode, detail: &str) -> String {
    match code {
        ErrorCode::UnknownAccount => {
            "there is no such account: --register makes it, where the server allows it".into()
        }
        ErrorCode::WrongKey => {
            "the account does not know this device's key: /add it on another device".into()
        }
        ErrorCode::NameTaken => "the name is taken by an account with other keys".into(),
        ErrorCode::RegistrationClosed => "this server registers nobody at the door: ask its operator".into(),
        other => format!("the server refuses: {other:?}: {detail}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_the_day() {
        assert_eq!(clock(0), "00:00:00");
        assert_eq!(clock(1_700_000_000), "22:13:20");
        assert_eq!(presence("bob", PresenceState::Offline, 0), "bob is not connected");
        assert_eq!(presence("bob", PresenceState::Offline, 86_399), "bob is not connected, seen 23:59:59");
    }

    #[test]
    fn why_a_connection_ended_is_said_in_words() {
        use tern_protocol::phone::record::RecordError;
        let no_server = not_understood(&ClientError::Record(RecordError::Kind(72)), false);
        assert!(no_server.contains("`ready`") && no_server.contains("phone"), "{no_server}");
        assert_ne!(not_understood(&ClientError::Record(RecordError::Kind(72)), true), no_server);
        for reason in
            [GoodbyeReason::Draining, GoodbyeReason::Idle, GoodbyeReason::TooSlow, GoodbyeReason::Busy]
        {
            assert!(!goodbye(reason).contains(&format!("{reason:?}")), "{reason:?}");
        }
    }

    #[test]
    fn an_account_has_the_number_that_the_operator_sees() {
        assert_eq!(number(AccountId(20_547_673_299_877_889)), "account 20547673299877889");
    }
}
