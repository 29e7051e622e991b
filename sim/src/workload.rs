//! Who asks for what, and when: drawn before the play begins, so that what clients want never depends on how they are
//! served.

use crate::random::Random;
use crate::scenario::{Arrivals, Lengths, Replay, Scenario, Tenant, at, secs};
use crate::trace::TraceRow;
use proto::request::{PrefixUse, ServiceClass, Ticket};
use proto::{AdapterId, Attempt, BlockHash, RequestId, Span, StreamId, TenantId, Time};
use std::collections::BTreeSet;

/// One HTTP request.
#[derive(Clone, Debug)]
pub struct Request {
    pub id: RequestId,
    /// Index in the scenario.
    pub tenant: usize,
    pub at: Time,
    pub tickets: Vec<Ticket>,
    /// How long the answer of each choice becomes by itself.
    pub output_tokens: Vec<u32>,
    /// The client goes away this long after it came.
    pub patience: Option<Span>,
}

/// All requests of the scenario, by time.
pub fn requests(scenario: &Scenario, seed: u64) -> Vec<Request> {
    let mut requests: Vec<Request> = scenario
        .tenants
        .iter()
        .enumerate()
        .flat_map(|(index, tenant)| {
            let random = Random::new(seed, 1000 + index as u64);
            Drawer {
                scenario,
                tenant,
                index,
                random,
            }
            .requests()
        })
        .collect();
    let replayed = (scenario.tenants.len()..).zip(&scenario.replays);
    requests.extend(replayed.flat_map(|(index, replay)| replay_requests(scenario, index, replay)));
    requests.sort_by_key(|request| (request.at, request.id));
    requests
}

/// Prompt tokens that one cache which never forgets would leave to be computed.
pub fn prompt_tokens_least(requests: &[Request], block_tokens: u32) -> u64 {
    let mut seen = BTreeSet::new();
    let mut least = 0;
    for ticket in requests.iter().flat_map(|request| &request.tickets) {
        // The last token of a prompt is always computed.
        let reusable = ((ticket.prompt_tokens.saturating_sub(1)) / block_tokens) as usize;
        let cached = ticket.block_hashes.iter().take(reusable);
        let cached = cached.take_while(|hash| seen.contains(&(ticket.tenant, **hash)));
        least += u64::from(ticket.prompt_tokens - cached.count() as u32 * block_tokens);
        seen.extend(ticket.block_hashes.iter().map(|hash| (ticket.tenant, *hash)));
    }
    least
}

/// Traces begin at zero; by now gateways have heard of their replicas.
const REPLAY_AFTER_SECS: f64 = 1.0;

/// What was recorded, until new requests end.
fn replay_requests(scenario: &Scenario, index: usize, replay: &Replay) -> Vec<Request> {
    let end = at(scenario.arrivals_secs);
    let request = |(number, row)| replay_request(scenario, index, replay, number, row);
    (0..)
        .zip(&replay.rows)
        .map(request)
        .take_while(|request| request.at < end)
        .collect()
}

fn replay_request(
    scenario: &Scenario,
    index: usize,
    replay: &Replay,
    number: u128,
    row: &TraceRow,
) -> Request {
    let block_tokens = scenario.engine.block_tokens;
    let shrunk = |tokens: u32| {
        let exact = u64::from(tokens) * u64::from(block_tokens);
        exact.div_ceil(u64::from(replay.block_tokens)).max(1) as u32
    };
    let (prompt_tokens, id) = (
        shrunk(row.prompt_tokens),
        RequestId((index as u128) << 64 | number),
    );
    let full_blocks = (prompt_tokens / block_tokens) as usize;
    // A recorded name stands for all that comes before it, too.
    let name = |block: &u32| block_name(index, u128::from(*block), 0);
    let ticket = Ticket {
        stream: StreamId {
            request: id,
            choice: 0,
        },
        attempt: Attempt(0),
        tenant: TenantId(index as u32),
        class: ServiceClass::Default,
        adapter: AdapterId(0),
        prompt_tokens,
        resumed_tokens: 0,
        block_hashes: row.blocks.iter().take(full_blocks).map(name).collect(),
        max_new_tokens: scenario
            .engine
            .context_tokens_max
            .saturating_sub(prompt_tokens)
            .max(1),
        prefix: PrefixUse::Reuse,
        deadline: None,
    };
    Request {
        id,
        tenant: index,
        at: at(REPLAY_AFTER_SECS + row.at_ms as f64 / 1e3 / replay.speed),
        tickets: vec![ticket],
        output_tokens: vec![shrunk(row.output_tokens)],
        patience: None,
    }
}

struct Drawer<'s> {
    scenario: &'s Scenario,
    tenant: &'s Tenant,
    index: usize,
    random: Random,
}

impl Drawer<'_> {
    fn requests(mut self) -> Vec<Request> {
        let end = at(self.scenario.arrivals_secs);
        let mut now = Time::ZERO + self.gap();
        let mut requests = Vec::new();
        while now < end {
            requests.push(self.request(now, requests.len()));
            now = now + self.gap();
        }
        requests
    }

    fn gap(&mut self) -> Span {
        let mean_secs = 1.0 / self.tenant.requests_per_sec;
        let gap = match self.tenant.arrivals {
            Arrivals::Poisson => secs(mean_secs * self.random.exponential()),
            Arrivals::Even => secs(mean_secs),
        };
        gap.max(Span(1))
    }

    fn request(&mut self, at: Time, number: usize) -> Request {
        let id = RequestId((self.index as u128) << 64 | number as u128);
        let prompt_tokens = self.length(self.tenant.prompt_tokens);
        let prefix = self.random.between(0, u64::from(self.tenant.prefixes) - 1);
        let output_tokens = (0..self.tenant.choices)
            .map(|_| self.length(self.tenant.output_tokens))
            .collect();
        let hashes = self.hashes(id, prompt_tokens, prefix);
        let ticket = |choice| self.ticket(StreamId { request: id, choice }, prompt_tokens, hashes.clone());
        let tickets = (0..self.tenant.choices).map(ticket).collect();
        Request {
            id,
            tenant: self.index,
            at,
            tickets,
            output_tokens,
            patience: self.patience(),
        }
    }

    fn ticket(&self, stream: StreamId, prompt_tokens: u32, block_hashes: Vec<BlockHash>) -> Ticket {
        let context = self.scenario.engine.context_tokens_max;
        Ticket {
            stream,
            attempt: Attempt(0),
            tenant: TenantId(self.index as u32),
            class: self.tenant.class.into(),
            adapter: AdapterId(0),
            prompt_tokens,
            resumed_tokens: 0,
            block_hashes,
            max_new_tokens: self
                .tenant
                .max_new_tokens
                .min(context.saturating_sub(prompt_tokens))
                .max(1),
            prefix: PrefixUse::Reuse,
            deadline: None,
        }
    }

    fn hashes(&self, request: RequestId, prompt_tokens: u32, prefix: u64) -> Vec<BlockHash> {
        let block_tokens = self.scenario.engine.block_tokens;
        let shared = self.tenant.shared_prefix_tokens / block_tokens;
        let name = |block: u32| {
            let text = if block < shared {
                u128::from(prefix) << 1 | 1
            } else {
                request.0 << 1
            };
            block_name(self.index, text, block)
        };
        (0..prompt_tokens / block_tokens).map(name).collect()
    }

    fn length(&mut self, lengths: Lengths) -> u32 {
        match lengths {
            Lengths::Fixed(tokens) => tokens.max(1),
            Lengths::Uniform { min, max } => {
                self.random.between(u64::from(min), u64::from(max)).max(1) as u32
            }
            Lengths::Exponential { mean, max } => {
                ((f64::from(mean) * self.random.exponential()).round() as u32).clamp(1, max.max(1))
            }
        }
    }

    fn patience(&mut self) -> Option<Span> {
        let (whether, how_long) = (self.random.unit() * 100.0, self.random.unit());
        (whether < self.tenant.impatient_percent).then(|| secs(self.tenant.patience_secs * how_long))
    }
}

/// Tokens do not exist here, so that a block's name is made of what would have made its tokens.
fn block_name(tenant: usize, text: u128, block: u32) -> BlockHash {
    let tenant = BlockHash(tenant as u128);
    tenant.child(&[
        text as u32,
        (text >> 32) as u32,
        (text >> 64) as u32,
        (text >> 96) as u32,
        block,
    ])
}

/// The name of a block that generation filled.
pub fn generated_block_name(tenant: usize, stream: StreamId, block: u32) -> BlockHash {
    block_name(tenant, !stream.request.0, block).child(&[stream.choice])
}
