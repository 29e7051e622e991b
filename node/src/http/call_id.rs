//! Names of calls, for their answers to refer to.

use crate::text::families::Family;
use proto::RequestId;
use sha2::{Digest, Sha256};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Names the calls of one choice. The same call has the same name each time that it is told, as when a client takes up
/// a stream again.
pub struct CallIds {
    pub family: &'static dyn Family,
    pub request: RequestId,
    pub choice: u32,
}

impl CallIds {
    pub fn id(&self, index: u32) -> String {
        let place = format!("{}:{}:{index}", self.request, self.choice);
        let letters = Sha256::digest(place)
            .iter()
            .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
            .collect::<String>();
        self.family.call_id(&letters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::families::{HERMES, MISTRAL};

    fn ids(family: &'static dyn Family, request: u128, choice: u32) -> CallIds {
        CallIds {
            family,
            request: RequestId(request),
            choice,
        }
    }

    #[test]
    fn a_call_keeps_its_name_and_others_have_other_names() {
        let name = ids(&HERMES, 1, 0).id(0);
        assert_eq!(name, ids(&HERMES, 1, 0).id(0));
        for other in [
            ids(&HERMES, 1, 0).id(1),
            ids(&HERMES, 1, 1).id(0),
            ids(&HERMES, 2, 0).id(0),
        ] {
            assert_ne!(name, other);
        }
        assert!(
            name.strip_prefix("call_")
                .is_some_and(|letters| letters.len() == 24),
            "{name}"
        );
    }

    #[test]
    fn mistral_gets_the_nine_letters_that_its_templates_ask_for() {
        let name = ids(&MISTRAL, 1, 0).id(0);
        assert!(
            name.len() == 9 && name.bytes().all(|letter| letter.is_ascii_alphanumeric()),
            "{name}"
        );
    }
}
