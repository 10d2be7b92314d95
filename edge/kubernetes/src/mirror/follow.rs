//! The watch of one kind, for ever: list, watch, resume, list again when the position has expired.

use std::fmt::Debug;

use futures_util::StreamExt as _;
use kube::{
    Resource,
    runtime::watcher::{Event, InitialListStrategy, watcher},
};
use serde::de::DeserializeOwned;

use super::Wanted;
use crate::{ApiError, backoff::Backoff};

/// Seconds until the server ends a watch, to be resumed where it was: a connection that died in silence is noticed
/// five seconds later.
const RENEW: u32 = 120;
/// After so many refusals one after the other the watch begins anew with a list: its position may be one that the
/// server will never have, as after a restore of etcd from a backup.
const GIVE_UP_POSITION: u32 = 4;

/// Who is told what a watch sees.
pub(crate) trait Follower<K>: Send {
    /// Something was seen. It may take its time: the server waits, and resumes or lists again if that was too long.
    fn event(&mut self, event: Event<K>) -> impl Future<Output = ()> + Send;
    /// The watch failed. It goes on; `true` if that is what the follower expects of a cluster without the kind: then
    /// nothing fails.
    fn fails(&mut self, error: &ApiError) -> impl Future<Output = bool> + Send;
    /// The watch works, or works again.
    fn works(&mut self);
}

/// Watches for ever.
pub(crate) async fn follow<K>(wanted: Wanted<K>, follower: &mut impl Follower<K>)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let Wanted { what, api, config, optional: _, answered: _ } = wanted;
    // One watch that begins with the list: the server sends it from its cache, without pages.
    // <https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming-lists>
    let mut config = config.streaming_lists().timeout(RENEW);
    let mut backoff = Backoff::new();
    loop {
        let mut events = std::pin::pin!(watcher(api.clone(), config.clone()));
        let mut refusals = 0;
        while let Some(event) = events.next().await {
            let error = match event {
                Ok(event) => {
                    let told = !matches!(event, Event::Init);
                    follower.event(event).await;
                    // That a list begins says nothing yet: with pages it is said before the server was asked.
                    if told {
                        refusals = 0;
                        backoff.reset();
                        follower.works();
                    }
                    continue;
                }
                Err(error) => error,
            };
            let error = ApiError::of_watch(what, &error);
            let streaming = config.initial_list_strategy == InitialListStrategy::StreamingList;
            // 500: an etcd before 3.4.31 or 3.5.13 ("the required storage feature RequestWatchProgress is disabled").
            if streaming && has_no_streaming(&error) {
                tracing::debug!(what, "the API server has no streaming lists: listing by pages");
                config.initial_list_strategy = InitialListStrategy::ListWatch;
                break;
            }
            if follower.fails(&error).await {
                follower.works();
            } else {
                tracing::debug!(what, %error, "watch failed");
            }
            tokio::time::sleep(backoff.next()).await;
            refusals += u32::from(!matches!(error, ApiError::Away { .. } | ApiError::TimedOut { .. }));
            if refusals >= GIVE_UP_POSITION {
                break;
            }
        }
    }
}

/// Whether the API server may list in another way. Switched off it answers 422, and with an etcd that is too old for it
/// (before 3.4.31 and 3.5.13: `RequestWatchProgress`) 500. To list by pages for another reason does no harm.
fn has_no_streaming(error: &ApiError) -> bool {
    matches!(error, ApiError::Refused { code: 400 | 422 | 500 | 501, .. })
}
