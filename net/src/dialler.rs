//! The socket as the dialling side sees it: what is needed to connect, and who this endpoint says that it is.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::ClientConfig;
use vecino_model::NodeId;

use crate::log_limit::LogLimit;
use crate::message::PeerIdentity;
use crate::rpc::Service;

/// Dials from one socket.
pub(crate) struct Dialler {
    /// Absent once closed: quinn frees the port when the last handle is gone.
    quic: Mutex<Option<quinn::Endpoint>>,
    config: ClientConfig,
    pub(crate) address: SocketAddr,
    pub(crate) node_id: NodeId,
    /// What this side's hello says of its software.
    pub(crate) software: String,
    pub(crate) dial_timeout: Duration,
    pub(crate) back_off_max: Duration,
    pub(crate) log_limit: LogLimit,
    /// The last agreed change of the mesh that this side knows of.
    epoch: AtomicU64,
    /// Absent for clients.
    service: Option<Arc<dyn Service>>,
}

/// What a dialler is made with.
pub(crate) struct DiallerParts {
    pub quic: quinn::Endpoint,
    pub config: ClientConfig,
    pub address: SocketAddr,
    pub node_id: NodeId,
    pub software: String,
    pub dial_timeout: Duration,
    pub back_off_max: Duration,
    pub service: Option<Arc<dyn Service>>,
}

impl Dialler {
    pub(crate) fn new(parts: DiallerParts) -> Self {
        let DiallerParts { quic, config, address, node_id, software, dial_timeout, back_off_max, service } = parts;
        let (quic, log_limit) = (Mutex::new(Some(quic)), LogLimit::default());
        let epoch = AtomicU64::new(0);
        Self { quic, config, address, node_id, software, dial_timeout, back_off_max, log_limit, epoch, service }
    }

    /// The socket's endpoint, unless it was closed.
    pub(crate) fn quic(&self) -> Option<quinn::Endpoint> {
        self.quic.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the socket's endpoint away, so that the port is freed once nobody else has it.
    pub(crate) fn take_quic(&self) -> Option<quinn::Endpoint> {
        self.quic.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The epoch that requests are sent with.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Sends requests with this epoch from now on, unless a later one was set.
    pub(crate) fn raise_epoch(&self, epoch: u64) {
        self.epoch.fetch_max(epoch, Ordering::AcqRel);
    }

    /// How connections are made.
    pub(crate) fn config(&self) -> ClientConfig {
        self.config.clone()
    }

    /// Who tells this node's clock; nothing for clients.
    pub(crate) fn service(&self) -> Option<&Arc<dyn Service>> {
        self.service.as_ref()
    }

    /// Which node this is; nothing for clients.
    pub(crate) fn identity(&self) -> Option<PeerIdentity> {
        self.service.as_ref().map(|service| service.identity())
    }
}
