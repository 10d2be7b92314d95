//! Which moments of a Pod's or container's life a plugin asks to be told of.

/// A moment, numbered as in api.proto.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// A Pod's network is there and its pause container runs; none of its containers is created yet.
    RunPodSandbox = 1,
    /// A Pod stops; its network is still there.
    StopPodSandbox = 2,
    /// A Pod is gone.
    RemovePodSandbox = 3,
    /// A container is about to be created; it may be adjusted.
    CreateContainer = 4,
    /// A container is created, and does not run yet.
    PostCreateContainer = 5,
    /// A container is about to start.
    StartContainer = 6,
    /// A container has started.
    PostStartContainer = 7,
}

impl Event {
    /// All that [`crate::Handler`] has a method for.
    pub const ALL: [Self; 7] = [
        Self::RunPodSandbox,
        Self::StopPodSandbox,
        Self::RemovePodSandbox,
        Self::CreateContainer,
        Self::PostCreateContainer,
        Self::StartContainer,
        Self::PostStartContainer,
    ];

    /// The event with api.proto's number, when a handler can be told of it.
    pub(crate) fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|event| *event as i32 == number)
    }

    /// The event that the method of the service `Plugin` is about.
    pub(crate) fn from_method(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.method() == method)
    }

    /// The method of the service `Plugin` that tells of it.
    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::RunPodSandbox => "RunPodSandbox",
            Self::StopPodSandbox => "StopPodSandbox",
            Self::RemovePodSandbox => "RemovePodSandbox",
            Self::CreateContainer => "CreateContainer",
            Self::PostCreateContainer => "PostCreateContainer",
            Self::StartContainer => "StartContainer",
            Self::PostStartContainer => "PostStartContainer",
        }
    }
}

/// A set of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Events(i32);

impl Events {
    /// No event. A runtime takes an empty set for all events, so a plugin that wants none hears of removed Pods.
    pub const fn none() -> Self {
        Self(0)
    }

    /// All that [`crate::Handler`] has a method for.
    pub fn all() -> Self {
        Event::ALL.into_iter().fold(Self::none(), Self::with)
    }

    /// These and `event`.
    #[must_use]
    pub const fn with(self, event: Event) -> Self {
        Self(self.0 | 1 << (event as i32 - 1))
    }

    /// Whether `event` is one of them.
    pub const fn has(self, event: Event) -> bool {
        self.0 & 1 << (event as i32 - 1) != 0
    }

    /// As a runtime wants to hear it.
    pub(crate) const fn subscription(self) -> i32 {
        match self.0 {
            0 => Self::none().with(Event::RemovePodSandbox).0,
            mask => mask,
        }
    }

    /// What a plugin subscribed to.
    pub(crate) const fn from_subscription(mask: i32) -> Self {
        Self(mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subscription_has_the_bits_that_runtimes_expect() {
        assert_eq!(Events::all().subscription(), 0b111_1111);
        assert_eq!(Events::none().with(Event::CreateContainer).subscription(), 0b1000);
    }

    #[test]
    fn nothing_is_never_said_because_runtimes_read_it_as_everything() {
        assert_ne!(Events::none().subscription(), 0);
    }
}
