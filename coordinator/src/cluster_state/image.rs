//! The state as it is written down, and back.

use super::ClusterState;
use proto::cluster::{ClusterImage, ImageV1, ImageV2};

impl ClusterState {
    /// In the version that every member of a cluster of this feature level can read.
    pub fn image(&self) -> ClusterImage {
        if self.level < 2 {
            return ClusterImage::V1(Box::new(self.first_image()));
        }
        ClusterImage::V2(Box::new(ImageV2 {
            first: self.first_image(),
            deployments: self.deployments.values().cloned().collect(),
            profiles: self.profiles.values().cloned().collect(),
            placements: self.placements.values().cloned().collect(),
            authorities_at: self.authorities_at,
        }))
    }

    fn first_image(&self) -> ImageV1 {
        ImageV1 {
            cluster: self.cluster,
            version: self.version,
            level: self.level,
            authorities: self.authorities.clone(),
            members: self.members.values().cloned().collect(),
            node_max: self.node_max,
            tokens: self.tokens.values().cloned().collect(),
            drained: self.drained.iter().copied().collect(),
            models: self.models.values().cloned().collect(),
            replicas: self.replicas.values().cloned().collect(),
            replica_next: self.replica_next,
            tenants: self.tenants.values().cloned().collect(),
            tenant_next: self.tenant_next,
            keys: self.keys.values().cloned().collect(),
            recent: self.recent.iter().cloned().collect(),
        }
    }

    /// The state whose [`ClusterState::image`] this is.
    pub fn of_image(image: ClusterImage) -> ClusterState {
        match image {
            ClusterImage::V1(image) => ClusterState::of_first_image(*image),
            ClusterImage::V2(image) => ClusterState {
                deployments: image
                    .deployments
                    .into_iter()
                    .map(|deployment| (deployment.model.name.clone(), deployment))
                    .collect(),
                profiles: image
                    .profiles
                    .into_iter()
                    .map(|profile| (profile.node, profile))
                    .collect(),
                placements: image
                    .placements
                    .into_iter()
                    .map(|placement| (placement.replica, placement))
                    .collect(),
                authorities_at: image.authorities_at,
                ..ClusterState::of_first_image(image.first)
            },
        }
    }

    fn of_first_image(image: ImageV1) -> ClusterState {
        ClusterState {
            cluster: image.cluster,
            version: image.version,
            level: image.level,
            authorities: image.authorities,
            members: image
                .members
                .into_iter()
                .map(|member| (member.node, member))
                .collect(),
            node_max: image.node_max,
            tokens: image
                .tokens
                .into_iter()
                .map(|token| (token.token.clone(), token))
                .collect(),
            drained: image.drained.into_iter().collect(),
            models: image
                .models
                .into_iter()
                .map(|model| (model.name.clone(), model))
                .collect(),
            replicas: image
                .replicas
                .into_iter()
                .map(|replica| (replica.replica, replica))
                .collect(),
            replica_next: image.replica_next,
            tenants: image
                .tenants
                .into_iter()
                .map(|tenant| (tenant.id, tenant))
                .collect(),
            tenant_next: image.tenant_next,
            keys: image
                .keys
                .into_iter()
                .map(|key| (key.key_id.clone(), key))
                .collect(),
            recent: image.recent.into(),
            ..ClusterState::default()
        }
    }
}
