//! A gateway: the production router, and the clients that read from it.

use crate::scenario::Cluster;
use coordinator::Machine;
use coordinator::router::{Router, RouterAction, RouterConfig, RouterEvent};
use proto::Time;

pub struct Gateway {
    router: Router,
    pub armed: Option<Time>,
}

impl Gateway {
    pub fn new(cluster: &Cluster) -> Gateway {
        let config = RouterConfig {
            streams_max: cluster.streams_max,
            streams_per_tenant_max: cluster.streams_per_tenant_max,
            credits: cluster.credits,
            ..RouterConfig::default()
        };
        Gateway {
            router: Router::new(config),
            armed: None,
        }
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
