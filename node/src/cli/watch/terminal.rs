//! The terminal: a screen of its own, keys as they are pressed, and everything as before at the end.

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{self, Read, Write, stdin, stdout};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

const OPEN: &str = "\x1b[?1049h\x1b[?25l";
const CLOSE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_REST_OF_LINE: &str = "\x1b[K";
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    pub columns: u16,
    pub rows: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    Leave,
    Other,
}

/// Dropping it gives the terminal back as it was.
pub struct Terminal {
    before: Termios,
    keys: Receiver<Key>,
    shown: Option<Size>,
}

impl Terminal {
    pub fn open() -> io::Result<Terminal> {
        let before = tcgetattr(stdin())?;
        let mut modes = before.clone();
        // Keys at once and unseen; Ctrl-C as a key, so that leaving is orderly.
        modes
            .local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
        tcsetattr(stdin(), OptionalActions::Now, &modes)?;
        let terminal = Terminal {
            before,
            keys: listen(),
            shown: None,
        };
        write!(stdout(), "{OPEN}")?;
        Ok(terminal)
    }

    pub fn show(&mut self, frame: impl FnOnce(Size) -> Vec<String>) -> io::Result<()> {
        let size = size();
        let lines = frame(size);
        let text = lines.join(&format!("{CLEAR_REST_OF_LINE}\r\n"));
        self.shown = Some(size);
        let mut out = stdout().lock();
        write!(out, "{HOME}{text}{CLEAR_REST_OF_LINE}")?;
        out.flush()
    }

    pub fn has_new_size(&self) -> bool {
        self.shown != Some(size())
    }

    /// Waits at most that long.
    pub fn key(&self, wait_max: Duration) -> Option<Key> {
        match self.keys.recv_timeout(wait_max) {
            Ok(key) => Some(key),
            Err(RecvTimeoutError::Timeout) => None,
            // Nobody can press a key any more.
            Err(RecvTimeoutError::Disconnected) => Some(Key::Leave),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = write!(stdout(), "{CLOSE}");
        let _ = stdout().flush();
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}

/// A thread that ends with the program: there is no way to wake a read of the terminal.
fn listen() -> Receiver<Key> {
    let (sender, keys) = sync_channel(16);
    std::thread::spawn(move || {
        for byte in stdin().lock().bytes().map_while(Result::ok) {
            let key = match byte {
                b'q' | b'Q' | CTRL_C | CTRL_D => Key::Leave,
                _other => Key::Other,
            };
            if sender.send(key).is_err() {
                return;
            }
        }
    });
    keys
}

fn size() -> Size {
    match tcgetwinsize(stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => Size {
            columns: size.ws_col,
            rows: size.ws_row,
        },
        Ok(_) | Err(_) => Size {
            columns: 80,
            rows: 24,
        },
    }
}
