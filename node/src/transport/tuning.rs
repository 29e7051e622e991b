//! QUIC for a LAN: quinn's defaults are for the internet, and cost a token there dearly.
//!
//! What each figure replaces: a window of 12,000 bytes at the start (a frame of 64 KB would need three round trips), a
//! first guess of 333 ms for the round trip, 25 ms until an acknowledgement may be waited for (so 26 ms until a lost last
//! packet is sent again), packets of at most 1,452 bytes, 30 s until a dead peer is noticed, and no limit on what a peer
//! may make us hold.

use super::protocol::Class;
use quinn::congestion::CubicConfig;
use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use std::sync::Arc;
use std::time::Duration;

/// What one UDP packet may carry. Of loopback (MTU 65,536) with the headers of IPv6 and UDP; IPv4 would take 19 more.
pub const PACKET_BYTES_MAX: u16 = 65_488;
/// As long as a path has not shown that it carries more: Ethernet (1,500) less the headers of IPv6 and UDP. The
/// handshake itself is padded to 1,200 only.
const PACKET_BYTES_FIRST: u16 = 1_452;
/// The search for the largest packet ends when it knows it to this many bytes.
const PACKET_BYTES_STEP: u16 = 32;
/// A path may have got better, or a switch been exchanged.
const PACKET_SEARCH_EVERY: Duration = Duration::from_secs(60);

/// Of a LAN with a busy host at its end; 3 ms until a first packet is sent again.
const ROUND_TRIP_FIRST: Duration = Duration::from_millis(1);
/// quinn's granularity of time. What is not acknowledged after about 2 ms is sent again.
const ACK_DELAY_MAX: Duration = Duration::from_millis(1);
/// Ten packets per acknowledgement: those cost as much as packets with data.
const ACK_EVERY_PACKETS: u32 = 10;
/// Several frames of activations (64 KB to 1 MB) are under way before the first is acknowledged.
const WINDOW_FIRST_BYTES: u64 = 4 << 20;

pub const KEEP_ALIVE_EVERY: Duration = Duration::from_millis(250);
/// The last resort: heartbeats find a dead node sooner.
pub const IDLE_MAX: Duration = Duration::from_secs(2);
/// Bulk shares its hosts with control, which finds out about death. Longer, because a host that copies gigabytes may well be
/// late.
const IDLE_BULK_MAX: Duration = Duration::from_secs(10);
/// Stages answer from threads that do not compute, so a step may take as long as it likes. Longer than the node of a stage
/// takes to find that it hangs, and to kill it: this is for stages that are there and do not reach each other.
const IDLE_ACTIVATIONS_MAX: Duration = Duration::from_secs(7);

/// Before the other side has been let in: it can open no stream, and send this much of nothing.
const STRANGER_WINDOW_BYTES: u32 = 64 << 10;
/// A longer handshake than certificates of ours need.
const CRYPTO_BYTES_MAX: usize = 16 << 10;

/// What a class may have under way.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams that the other side may have open.
    pub streams_max: u32,
    /// Bytes that the other side may send before we have read them, over all streams: what a peer can make us hold.
    pub receive_window_bytes: u32,
    /// Bytes that we hold until they are acknowledged.
    pub send_window_bytes: u64,
}

impl Limits {
    pub fn of(class: Class) -> Limits {
        match class {
            // A stream for each call under way.
            Class::Control => Limits {
                streams_max: 256,
                receive_window_bytes: 16 << 20,
                send_window_bytes: 16 << 20,
            },
            // 32 MiB: 25 Gb/s over a round trip of 10 ms.
            Class::Bulk => Limits {
                streams_max: 16,
                receive_window_bytes: 32 << 20,
                send_window_bytes: 32 << 20,
            },
            // One stream for each edge and direction.
            Class::Activations => Limits {
                streams_max: 64,
                receive_window_bytes: 32 << 20,
                send_window_bytes: 32 << 20,
            },
        }
    }
}

/// For the side that dials.
pub fn dialling(class: Class, packet_bytes_max: u16) -> TransportConfig {
    let mut config = common(packet_bytes_max);
    config.max_idle_timeout(Some(idle(idle_max(class))));
    // The dialling side alone keeps a connection alive: its packets are answered.
    config.keep_alive_interval(Some(match class {
        Class::Control => KEEP_ALIVE_EVERY,
        Class::Bulk | Class::Activations => idle_max(class) / 4,
    }));
    config
}

/// For the side that is dialled. Of idle times the shorter one holds, so the one who dials decides.
pub fn accepting(packet_bytes_max: u16) -> TransportConfig {
    let mut config = common(packet_bytes_max);
    config.max_idle_timeout(Some(idle(IDLE_BULK_MAX)));
    config
}

/// For a single question of a stranger, or to one.
pub fn asking() -> TransportConfig {
    let mut config = common(PACKET_BYTES_FIRST);
    config.max_idle_timeout(Some(idle(IDLE_BULK_MAX)));
    config.keep_alive_interval(Some(IDLE_BULK_MAX / 4));
    config
}

/// Once the other side has been let in.
pub fn let_in(connection: &quinn::Connection, limits: Limits) {
    connection.set_send_window(limits.send_window_bytes);
    connection.set_receive_window(VarInt::from_u32(limits.receive_window_bytes));
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(limits.streams_max));
}

/// For one question.
pub fn let_ask(connection: &quinn::Connection) {
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(1));
}

fn common(packet_bytes_max: u16) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0)
        .crypto_buffer_size(CRYPTO_BYTES_MAX)
        .receive_window(VarInt::from_u32(STRANGER_WINDOW_BYTES))
        // The window of the connection is what bounds memory; one stream may have it all.
        .stream_receive_window(VarInt::from_u32(32 << 20))
        .send_window(u64::from(STRANGER_WINDOW_BYTES))
        // In the order in which they were written: a frame is whole sooner.
        .send_fairness(false)
        .initial_rtt(ROUND_TRIP_FIRST)
        .initial_mtu(PACKET_BYTES_FIRST)
        .mtu_discovery_config(Some(packet_search(packet_bytes_max)))
        .ack_frequency_config(Some(acknowledgements()))
        .congestion_controller_factory(Arc::new(window()));
    config
}

fn packet_search(packet_bytes_max: u16) -> MtuDiscoveryConfig {
    let mut search = MtuDiscoveryConfig::default();
    search
        .upper_bound(packet_bytes_max)
        .minimum_change(PACKET_BYTES_STEP)
        .interval(PACKET_SEARCH_EVERY);
    search
}

fn acknowledgements() -> AckFrequencyConfig {
    let mut config = AckFrequencyConfig::default();
    config
        .max_ack_delay(Some(ACK_DELAY_MAX))
        .ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY_PACKETS));
    config
}

fn window() -> CubicConfig {
    let mut config = CubicConfig::default();
    config.initial_window(WINDOW_FIRST_BYTES);
    config
}

fn idle_max(class: Class) -> Duration {
    match class {
        Class::Control => IDLE_MAX,
        Class::Bulk => IDLE_BULK_MAX,
        Class::Activations => IDLE_ACTIVATIONS_MAX,
    }
}

fn idle(duration: Duration) -> IdleTimeout {
    IdleTimeout::try_from(duration).expect("seconds fit")
}
