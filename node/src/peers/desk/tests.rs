//! Strangers at the desk of a cluster of one.

use crate::clock;
use crate::peers::entry::{self, Entry, FEATURE_LEVEL, Place};
use crate::transport::Service;
use crate::trust::{Identity, JoinToken, spki_of};
use proto::cluster::{ClusterCommand, Role, TokenRecord};
use proto::join::{JoinAnswer, JoinRequest, Joining};
use std::path::PathBuf;
use std::time::Duration;

const FOREVER: Duration = Duration::from_secs(60 * 60);

struct Founder {
    entry: Entry,
    folder: PathBuf,
}

impl Founder {
    async fn new(name: &str) -> Founder {
        let folder = std::env::temp_dir().join(format!("cluster-desk-{name}-{}", std::process::id()));
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let place = Place {
            data_dir: &folder,
            quic: anywhere,
            http_scheme: "http",
            http: anywhere,
        };
        let entry = entry::enter(&place, None).await.unwrap();
        Founder { entry, folder }
    }

    async fn token(&self, expires_at_secs: u64) -> JoinToken {
        let authority = spki_of(&self.entry.state.applied().authorities()[0]).unwrap();
        let address = self.entry.peers.local_address().unwrap();
        let token = JoinToken::draw(Role::Worker, authority, vec![address]).unwrap();
        let record = TokenRecord {
            token: crate::hex::encode(&token.id),
            secret_hash: token.secret_hash(),
            role: Role::Worker,
            expires_at_secs,
        };
        let added = self
            .entry
            .state
            .commit(ClusterCommand::AddToken(Box::new(record)));
        added.await.unwrap();
        token
    }

    async fn answer(&self, token: &JoinToken, identity: &Identity) -> JoinAnswer {
        let joining = Joining {
            token_id: token.id,
            secret: token.secret,
            csr: identity.csr().unwrap(),
            quic_address: "127.0.0.1:1".to_owned(),
            http_url: "http://127.0.0.1:2".to_owned(),
            program_version: "0.1.0".to_owned(),
            feature_level: FEATURE_LEVEL,
        };
        let from = "127.0.0.1:3".parse().unwrap();
        let request = JoinRequest::V1(Box::new(joining));
        self.entry.desk.join(from, request).await
    }

    fn last_index(&self) -> u64 {
        self.entry.state.member.view().last_index
    }
}

impl Drop for Founder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn refusal(answer: JoinAnswer) -> String {
    match answer {
        JoinAnswer::Refused(refused) => refused.reason,
        JoinAnswer::Welcome(welcome) => panic!("let in as {}", welcome.node),
    }
}

#[tokio::test]
async fn a_stranger_who_is_refused_leaves_the_log_as_it_is() {
    let founder = Founder::new("refused").await;
    let now_secs = clock::unix_secs();
    let fit = founder.token(now_secs + FOREVER.as_secs()).await;
    let late = founder.token(now_secs).await;
    let mut wrong = fit.clone();
    wrong.secret[0] ^= 1;
    let mut unknown = fit.clone();
    unknown.id[0] ^= 1;
    let stranger = Identity::make().unwrap();
    let before = founder.last_index();
    for token in [&late, &wrong, &unknown] {
        let reason = refusal(founder.answer(token, &stranger).await);
        assert!(reason.contains("the join token is unknown"), "{reason}");
    }
    assert_eq!(founder.last_index(), before);

    let JoinAnswer::Welcome(welcome) = founder.answer(&fit, &stranger).await else {
        panic!("the right one was refused");
    };
    // Who has lost the answer asks again, and is told once more who it is.
    let JoinAnswer::Welcome(again) = founder.answer(&fit, &stranger).await else {
        panic!("it is a member already");
    };
    assert_eq!(again.node, welcome.node);
    let other = Identity::make().unwrap();
    let reason = refusal(founder.answer(&fit, &other).await);
    assert!(reason.contains("was used already"), "{reason}");
    let state = founder.entry.state.applied();
    assert_eq!(state.members().count(), 2);
}
