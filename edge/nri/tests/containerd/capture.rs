//! Writes down what a runtime says, byte by byte, for the tests of the codec.

use std::path::{Path, PathBuf};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

/// Stands between one plugin, which connects to `at`, and the runtime, until either goes. Then `file` has what the
/// runtime said.
pub(crate) fn between(at: &Path, runtime: PathBuf, file: PathBuf) -> JoinHandle<()> {
    let listener = UnixListener::bind(at).unwrap();
    tokio::spawn(async move {
        let (plugin, _) = listener.accept().await.unwrap();
        let (mut from_plugin, mut to_plugin) = plugin.into_split();
        let (mut from_runtime, mut to_runtime) = UnixStream::connect(runtime).await.unwrap().into_split();
        tokio::spawn(async move {
            let _ = tokio::io::copy(&mut from_plugin, &mut to_runtime).await;
        });
        let (mut said, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        while let Ok(length @ 1..) = from_runtime.read(&mut buffer).await {
            said.extend_from_slice(&buffer[..length]);
            if to_plugin.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
        std::fs::write(file, said).unwrap();
    })
}
