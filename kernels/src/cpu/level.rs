//! How far up the instruction sets the kernels may climb.

use std::fmt;
use std::str::FromStr;

/// Rungs of the ladder. Each has all of those before it, but for BF16's instruction, which tiles make needless.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// What every machine has.
    Scalar,
    /// AVX2, FMA, F16C.
    Avx2,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
    /// And VNNI.
    Avx512Vnni,
    /// And BF16; chosen by itself only where it is the faster way.
    Avx512Bf16,
    /// And tiles of int8 and bf16, which the kernel has to grant.
    Amx,
}

impl Level {
    pub const ALL: [Level; 6] = [
        Level::Scalar,
        Level::Avx2,
        Level::Avx512,
        Level::Avx512Vnni,
        Level::Avx512Bf16,
        Level::Amx,
    ];

    /// The level of this machine if nobody wishes for another: the highest that pays. Never changes while the process runs.
    pub fn detect() -> Level {
        Level::choose(None)
    }

    /// The level to run at: the one wished for, or if this machine lacks it the highest below it that pays.
    pub fn choose(wish: Option<Level>) -> Level {
        Level::climb(wish.unwrap_or(Level::Amx), Level::is_available, Level::pays)
    }

    /// Rows that products take at once, where fewer take about as long (tiles have 16); else 1.
    pub const fn rows_at_once(self) -> u32 {
        match self {
            Level::Scalar | Level::Avx2 | Level::Avx512 | Level::Avx512Vnni | Level::Avx512Bf16 => 1,
            Level::Amx => 16,
        }
    }

    /// Up to `most`; what is above is not even tried. What would not pay is left out unless it is what was wished for.
    fn climb(most: Level, is_available: impl Fn(Level) -> bool, pays: impl Fn(Level) -> bool) -> Level {
        let highest = Level::ALL
            .into_iter()
            .rfind(|level| *level <= most && is_available(*level) && (*level == most || pays(*level)));
        highest.unwrap_or(Level::Scalar)
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        use super::isa::{amx, avx512bf16};
        use std::arch::is_x86_feature_detected as has;
        match self {
            Level::Scalar => true,
            Level::Avx2 => has!("avx2") && has!("fma") && has!("f16c"),
            Level::Avx512 => {
                let has_all = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
                has_all && Level::Avx2.is_available()
            }
            Level::Avx512Vnni => has!("avx512vnni") && Level::Avx512.is_available(),
            Level::Avx512Bf16 => Level::Avx512Vnni.is_available() && avx512bf16::is_available(),
            Level::Amx => Level::Avx512Vnni.is_available() && amx::is_available(),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn pays(self) -> bool {
        match self {
            Level::Scalar | Level::Avx2 | Level::Avx512 | Level::Avx512Vnni | Level::Amx => true,
            Level::Avx512Bf16 => super::isa::avx512bf16::pays(),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn pays(self) -> bool {
        true
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_available(self) -> bool {
        self == Level::Scalar
    }

    const fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Avx512Vnni => "avx512vnni",
            Level::Avx512Bf16 => "avx512bf16",
            Level::Amx => "amx",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is no level's.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("no CPU level is called {name:?}; choose scalar, avx2, avx512, avx512vnni, avx512bf16 or amx")]
pub struct UnknownLevel {
    pub name: String,
}

impl FromStr for Level {
    type Err = UnknownLevel;
    fn from_str(name: &str) -> Result<Level, UnknownLevel> {
        let known = Level::ALL.into_iter().find(|level| level.name() == name);
        known.ok_or_else(|| UnknownLevel {
            name: name.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_as_printed() {
        for level in Level::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        assert!("sse9".parse::<Level>().is_err());
    }

    #[test]
    fn a_wish_for_more_than_there_is_gets_what_is_and_pays() {
        let all = |_| true;
        let pays = |level| level != Level::Avx512Bf16;
        assert_eq!(Level::climb(Level::Amx, all, pays), Level::Amx);
        assert_eq!(
            Level::climb(Level::Avx512Bf16, all, pays),
            Level::Avx512Bf16,
            "wished for"
        );
        let no_tiles = |level| level < Level::Amx;
        assert_eq!(Level::climb(Level::Amx, no_tiles, pays), Level::Avx512Vnni);
        assert_eq!(Level::climb(Level::Amx, no_tiles, all), Level::Avx512Bf16);
        let old = |level| level <= Level::Avx2;
        assert_eq!(Level::climb(Level::Avx512Bf16, old, all), Level::Avx2);
        assert_eq!(Level::climb(Level::Avx2, all, all), Level::Avx2);
        assert_eq!(Level::climb(Level::Amx, |_| false, all), Level::Scalar);
    }
}
