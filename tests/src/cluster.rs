//! What tests on a real cluster begin with: a Kubernetes namespace of their own, Portolan installed, clients outside.
//!
//! The cluster is the one that [`portolan_cluster::need_cluster!`] finds. [`Space`] is a test's namespace in it,
//! `install` puts Portolan there once for all tests, [`Outside`] is a machine that is no node.

mod echo;
mod install;
mod line;
mod nodes;
mod outside;
mod ports;
mod space;

pub use echo::Echo;
pub use install::{Chart, image, installed, load_image};
pub use line::Line;
pub use nodes::{client, found, namespace, on, say};
pub use outside::Outside;
pub use ports::{Asking, Told, image as image_name, public_address, told};
pub use space::{Space, ready, status_of};
