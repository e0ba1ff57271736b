//! Without a terminal: a line for whatever is said. What child processes say goes to standard error by itself.

use super::event::Event;
use crate::quit::Quit;
use std::io::Write;
use std::sync::mpsc::Receiver;

/// Writes until there is nothing more to tell.
pub(super) fn run(mut out: impl Write, events: &Receiver<Event>, quit: &Quit) {
    for event in events {
        if let Event::Say(text) = event
            && writeln!(out, "demo: {text}").and_then(|()| out.flush()).is_err()
        {
            // Nobody reads: as a pipe's writer should, it ends, but not without cleaning up.
            quit.ask();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::mpsc::channel;

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn says_what_is_for_people_and_ends_when_nobody_reads() {
        let (send, receive) = channel();
        for event in [Event::Say("hello".into()), Event::Silence, Event::Killed, Event::Say("again".into())] {
            send.send(event).unwrap();
        }
        drop(send);
        let (mut out, quit) = (Vec::new(), Quit::default());
        run(&mut out, &receive, &quit);
        assert_eq!(String::from_utf8(out).unwrap(), "demo: hello\ndemo: again\n");
        assert!(!quit.is_asked());
        let (send, receive) = channel();
        send.send(Event::Say("hello".into())).unwrap();
        drop(send);
        run(Broken, &receive, &quit);
        assert!(quit.is_asked());
    }
}
