//! What a supervisor asks of the node over its unix socket.

use http::Method;
use portolan_client::{Client, ClientError};
use portolan_model::{Incarnation, LeaseReply, LeaseRequest, Name};

/// The node's API, in the words of the supervisor.
#[derive(Clone, Debug)]
pub(crate) struct NodeClient {
    pub(crate) client: Client,
}

impl NodeClient {
    /// Ports for an instance; the same again when asked again.
    pub(crate) async fn lease(&self, request: &LeaseRequest) -> Result<LeaseReply, ClientError> {
        self.client.request_json(Method::POST, "/v1/node/leases", Some(request)).await
    }

    /// Lets go of the holds, for a command that binds the ports itself; called right before it starts.
    pub(crate) async fn give_up_holds(&self, name: &Name, life: &Incarnation) -> Result<(), ClientError> {
        self.client
            .request_empty(Method::DELETE, &format!("/v1/node/leases/{name}/holds?incarnation={life}"))
            .await
    }

    /// Takes the holds back, after the command ended.
    pub(crate) async fn hold_again(&self, name: &Name, life: &Incarnation) -> Result<(), ClientError> {
        self.client
            .request_empty(Method::PUT, &format!("/v1/node/leases/{name}/holds?incarnation={life}"))
            .await
    }

    /// Gives everything back.
    pub(crate) async fn release(&self, name: &Name, life: &Incarnation) -> Result<(), ClientError> {
        self.client.request_empty(Method::DELETE, &format!("/v1/node/leases/{name}?incarnation={life}")).await
    }
}
