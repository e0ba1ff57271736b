//! Closing a connection so that the other end sees it torn down, not ended.

use crate::error::SlotError;
use crate::event::Slot;
use crate::ring::Ring;
use crate::slots::Phase;
use crate::userdata::{Kind, of_slot, plain};
use io_uring::{opcode, types};

/// SO_LINGER of no time: closing throws away what is on its way and sends a reset (RFC 9293, section 3.10.4).
static NO_LINGER: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };

impl Ring {
    /// As [`Ring::close`], but the other end gets a reset (RST) at once, as from a machine that died, instead of an end
    /// of the stream (FIN). With a send under way both come; a kernel before 6.7 sends the FIN only.
    ///
    /// # Errors
    /// [`SlotError::Busy`] while the socket is being moved.
    pub fn reset(&mut self, slot: Slot, key: u64) -> Result<(), SlotError> {
        let state = self.begin_close(slot, key)?;
        let (quiet, sending, generation) = (state.is_quiet(), state.sending, state.generation);
        let option = opcode::SetSockOpt::new(
            types::Fixed(slot.0),
            libc::SOL_SOCKET as u32,
            libc::SO_LINGER as u32,
            (&raw const NO_LINGER).cast(),
            size_of::<libc::linger>() as u32,
        );
        // In the submission queue's order: it has been done when the close is begun.
        self.push(option.build().user_data(plain(Kind::SocketOption, 0)));
        if !quiet {
            // Ends a receive without a word to the other end; a send that waits for room only ends with a FIN.
            let how = if sending { libc::SHUT_RDWR } else { libc::SHUT_RD };
            self.slots[slot.0 as usize].phase = Phase::ShuttingDown;
            let user_data = of_slot(Kind::Shutdown, slot.0, generation);
            self.push(opcode::Shutdown::new(types::Fixed(slot.0), how).build().user_data(user_data));
        }
        self.close_if_quiet(slot.0);
        Ok(())
    }
}
