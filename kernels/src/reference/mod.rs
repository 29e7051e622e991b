//! Plain loops: the truth that every fast kernel is compared with.
