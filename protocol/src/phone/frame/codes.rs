//! Closed lists that frames carry as one byte.

/// Why the server refuses to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ErrorCode {
    /// Bytes that are not frames.
    Malformed = 1,
    /// A frame that may not come now.
    UnexpectedFrame = 2,
    /// No account has the name.
    UnknownAccount = 3,
    /// The account exists and does not know this device key.
    WrongKey = 4,
    /// Registration: the name belongs to someone.
    NameTaken = 5,
    /// The name breaks the rules of [`crate::phone::valid_name`].
    BadName = 6,
    /// This server does not register accounts by itself.
    RegistrationClosed = 7,
    /// A body above the limit that `Welcome` named.
    TooLarge = 8,
    /// An acknowledgement of what was not delivered.
    BadAcknowledgement = 9,
    /// A message id whose time is far from the server's.
    BadMessageId = 10,
    /// The server failed; try again later.
    Internal = 11,
    /// The account has as many devices as it may have.
    AccountFull = 12,
    /// The account has no such device.
    UnknownDevice = 13,
    /// An account keeps its last device: it is removed as a whole, by the operator.
    LastDevice = 14,
    /// The resume ticket was used on another connection meanwhile: log in with the device's key.
    TicketUsed = 15,
    /// The account has added many devices lately; it may add another one later.
    TooManyAdded = 16,
    /// The account has given out all numbers of devices that there are: no other device can be added, ever.
    NumbersUsedUp = 17,
}

impl ErrorCode {
    pub(super) const fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Malformed,
            2 => Self::UnexpectedFrame,
            3 => Self::UnknownAccount,
            4 => Self::WrongKey,
            5 => Self::NameTaken,
            6 => Self::BadName,
            7 => Self::RegistrationClosed,
            8 => Self::TooLarge,
            9 => Self::BadAcknowledgement,
            10 => Self::BadMessageId,
            11 => Self::Internal,
            12 => Self::AccountFull,
            13 => Self::UnknownDevice,
            14 => Self::LastDevice,
            15 => Self::TicketUsed,
            16 => Self::TooManyAdded,
            17 => Self::NumbersUsedUp,
            _ => return None,
        })
    }
}

/// Why the server ends a connection without an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum GoodbyeReason {
    /// The same device logged in again.
    Replaced = 1,
    /// The node is going down in order.
    Draining = 2,
    /// Silent for too long.
    Idle = 3,
    /// The account or device was removed.
    Removed = 4,
    /// Does not read what it is sent.
    TooSlow = 5,
    /// Overload.
    Busy = 6,
}

impl GoodbyeReason {
    pub(super) const fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Replaced,
            2 => Self::Draining,
            3 => Self::Idle,
            4 => Self::Removed,
            5 => Self::TooSlow,
            6 => Self::Busy,
            _ => return None,
        })
    }
}

/// In which state a device, or an account by its most present device, is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum PresenceState {
    /// No device is connected. Only the server says so.
    Offline = 0,
    /// Connected, nobody looks at it.
    Away = 1,
    /// Connected and in use.
    Available = 2,
}

impl PresenceState {
    /// Reads the wire value.
    #[must_use]
    pub const fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::Offline,
            1 => Self::Away,
            2 => Self::Available,
            _ => return None,
        })
    }
}
