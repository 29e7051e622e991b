//! Stop strings over text that comes in fragments.

use std::ops::Range;
use std::sync::Arc;

/// Passes text on until one of the stop strings is seen, and holds back only what could be the beginning of one.
pub struct StopMatcher {
    stops: Arc<[String]>,
    ending: StopEnding,
    held: String,
    stopped: Stopped,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    No,
    /// A stop string was seen: the text has ended, and nothing more will come.
    Yes,
}

/// Where a text ends that a stop string ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopEnding {
    BeforeStop,
    AfterStop,
}

impl StopMatcher {
    /// Empty strings among `stops` would stop everything; callers refuse them.
    pub fn new(stops: Arc<[String]>, ending: StopEnding) -> StopMatcher {
        assert!(stops.iter().all(|stop| !stop.is_empty()), "an empty stop string");
        StopMatcher {
            stops,
            ending,
            held: String::new(),
            stopped: Stopped::No,
        }
    }

    /// The text that is certain now.
    pub fn push(&mut self, text: &str) -> String {
        if self.stopped == Stopped::Yes {
            return String::new();
        }
        self.held.push_str(text);
        if let Some(stop) = self.first_stop() {
            self.stopped = Stopped::Yes;
            self.held.truncate(match self.ending {
                StopEnding::BeforeStop => stop.start,
                StopEnding::AfterStop => stop.end,
            });
            return std::mem::take(&mut self.held);
        }
        let rest = self.held.split_off(self.held.len() - self.possible_start_bytes());
        std::mem::replace(&mut self.held, rest)
    }

    /// What was held back, when nothing more comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    pub fn stopped(&self) -> Stopped {
        self.stopped
    }

    /// Where the stop string stands that is complete first (the longest of several that end together), so that the
    /// answer does not depend on how the text was cut into fragments.
    fn first_stop(&self) -> Option<Range<usize>> {
        let place = |stop: &String| {
            let start = self.held.find(stop)?;
            Some(start..start + stop.len())
        };
        let found = self.stops.iter().filter_map(place);
        found.min_by_key(|place| (place.end, place.start))
    }

    /// The length of the longest end of the held text that begins a stop string.
    fn possible_start_bytes(&self) -> usize {
        self.stops
            .iter()
            .map(|stop| overlap_bytes(&self.held, stop))
            .max()
            .unwrap_or(0)
    }
}

/// The length of the longest end of `text` that is a proper beginning of `stop`.
fn overlap_bytes(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    let candidates = (1..=longest).rev();
    candidates
        .into_iter()
        .find(|bytes| text.as_bytes().ends_with(&stop.as_bytes()[..*bytes]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], fragments: &[&str]) -> (Vec<String>, Stopped) {
        let mut matcher = StopMatcher::new(
            stops.iter().map(|stop| stop.to_string()).collect(),
            StopEnding::BeforeStop,
        );
        let mut out: Vec<String> = fragments.iter().map(|fragment| matcher.push(fragment)).collect();
        out.push(matcher.finish());
        (out, matcher.stopped())
    }

    #[test]
    fn only_a_possible_beginning_of_a_stop_string_is_held_back() {
        let (out, stopped) = run(&["END"], &["abE", "N", "x"]);
        assert_eq!(out, ["ab", "", "ENx", ""]);
        assert_eq!(stopped, Stopped::No);
    }

    #[test]
    fn text_ends_before_the_stop_string_also_when_it_comes_in_parts() {
        assert_eq!(
            run(&["END"], &["abE", "N", "Dcd", "ef"]),
            (
                vec!["ab".into(), "".into(), "".into(), "".into(), "".into()],
                Stopped::Yes
            )
        );
    }

    #[test]
    fn the_stop_string_may_stay_at_the_end() {
        let mut matcher = StopMatcher::new(["END".into()].into(), StopEnding::AfterStop);
        let out = ["abE", "NDcd", "ef"].map(|fragment| matcher.push(fragment));
        assert_eq!(out, ["ab", "END", ""]);
        assert_eq!((matcher.finish().as_str(), matcher.stopped()), ("", Stopped::Yes));
    }

    #[test]
    fn of_several_stop_strings_the_one_that_is_complete_first_wins() {
        assert_eq!(run(&["cd", "bcde"], &["abcde"]).0, ["ab", ""]);
        assert_eq!(run(&["cd", "bcd"], &["abcde"]).0, ["a", ""]);
    }

    #[test]
    fn held_text_comes_out_when_nothing_more_comes() {
        assert_eq!(run(&["\n\n"], &["a\n"]).0, ["a", "\n"]);
    }

    proptest! {
        #[test]
        fn cutting_the_text_into_fragments_changes_nothing(
            text in "[abé]{0,24}", stops in prop::collection::vec("[abé]{1,4}", 1..4), sizes in prop::collection::vec(1usize..5, 24)
        ) {
            let first = stops.iter().filter_map(|stop| Some((text.find(stop)? + stop.len(), text.find(stop)?))).min();
            let whole = match first {
                Some((_, start)) => (&text[..start], Stopped::Yes),
                None => (text.as_str(), Stopped::No),
            };
            let mut matcher = StopMatcher::new(stops.clone().into(), StopEnding::BeforeStop);
            let mut rest: Vec<char> = text.chars().collect();
            let mut out = String::new();
            for size in sizes {
                let fragment: String = rest.drain(..size.min(rest.len())).collect();
                out.push_str(&matcher.push(&fragment));
            }
            out.push_str(&matcher.push(&rest.into_iter().collect::<String>()));
            out.push_str(&matcher.finish());
            prop_assert_eq!((out.as_str(), matcher.stopped()), whole);
        }
    }
}
