//! What may be said of a call before it is made, by whatever becomes one.

/// Methods that say something of one call, each with the docs that it has there. First comes where the call has what is said
/// of it. Metadata and context are [`extension_methods`](crate::metadata::extension_methods).
macro_rules! call_methods {
    ($place:tt $($(#[$doc:meta])* $method:ident;)+) => {
        $(crate::client::methods::call_methods!(@$method $place $(#[$doc])*);)+
    };
    (@deadline ($($outgoing:ident).+) $(#[$doc:meta])*) => {
        $(#[$doc])*
        pub fn deadline(mut self, deadline: std::time::Duration) -> Self {
            self.$($outgoing).+.timeout = deadline;
            self
        }
    };
    (@priority ($($outgoing:ident).+) $(#[$doc:meta])*) => {
        $(#[$doc])*
        pub fn priority(mut self, priority: u8) -> Self {
            self.$($outgoing).+.priority = priority;
            self
        }
    };
    (@wait_for_ready ($($outgoing:ident).+) $(#[$doc:meta])*) => {
        $(#[$doc])*
        pub fn wait_for_ready(mut self, wait: bool) -> Self {
            self.$($outgoing).+.wait_for_ready = wait;
            self
        }
    };
    (@compression ($($outgoing:ident).+) $(#[$doc:meta])*) => {
        $(#[$doc])*
        pub fn compression(mut self, compression: Option<ringcall_compression::Compression>) -> Self {
            self.$($outgoing).+.compression = crate::packing::wish(compression);
            self
        }
    };
    (@idempotency_key $place:tt $(#[$doc:meta])*) => {
        $(#[$doc])*
        pub fn idempotency_key(mut self, key: impl AsRef<[u8]>) -> Self {
            let tag = ringcall_core::frame::tag::IDEMPOTENCY_KEY;
            crate::metadata::push(&mut self.extensions, tag, &[key.as_ref()]);
            self
        }
    };
}

pub(crate) use call_methods;
