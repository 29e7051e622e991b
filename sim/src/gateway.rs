//! A gateway: a router, and when it wants to be woken.

use crate::scenario::Cluster;
use coordinator::Machine;
use coordinator::router::{Router, RouterAction, RouterConfig, RouterEvent};
use proto::Time;

/// The production router, or one to compare it with.
pub type AnyRouter = Box<dyn Machine<Event = RouterEvent, Action = RouterAction>>;

pub struct Gateway {
    router: AnyRouter,
    pub armed: Option<Time>,
}

impl Gateway {
    pub fn new(router: AnyRouter) -> Gateway {
        Gateway { router, armed: None }
    }

    pub fn production(cluster: &Cluster) -> AnyRouter {
        let config = RouterConfig {
            streams_max: cluster.streams_max,
            streams_per_tenant_max: cluster.streams_per_tenant_max,
            credits: cluster.credits,
            ..RouterConfig::default()
        };
        Box::new(Router::new(config))
    }

    pub fn handle(&mut self, now: Time, event: RouterEvent) -> Vec<RouterAction> {
        let mut out = Vec::new();
        self.router.handle(now, event, &mut out);
        out
    }

    pub fn wake(&mut self, now: Time) -> Vec<RouterAction> {
        let mut out = Vec::new();
        if self.router.deadline().is_some_and(|deadline| deadline <= now) {
            self.router.wake(now, &mut out);
        }
        out
    }

    pub fn deadline(&self) -> Option<Time> {
        self.router.deadline()
    }
}
