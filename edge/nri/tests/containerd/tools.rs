//! No tests: a measurement, and how a file of the tree is made.

use std::path::Path;

use portolan_testkit::need_root;

use crate::{ASKS, PATIENCE, Served, TELL, capture, machine::Machine};

/// Makes `tests/captured/containerd.bin` anew, which the codec is tested with:
/// `cargo test -p portolan-nri --test containerd -- --ignored what_a_runtime_says`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes a file of the tree"]
async fn what_a_runtime_says_is_written_down() {
    need_root!();
    let Some(machine) = Machine::start().await else { return };
    let cri = &machine.cri;
    let existing = cri.run_pod("existing", &[ASKS], true).await.unwrap();
    cri.create(&existing, "old", TELL, &[]).await.unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captured/containerd.bin");
    let between = capture::between(&machine.path("between.sock"), machine.nri(), file);
    let served = Served::begin_at(&machine, machine.path("between.sock")).await;
    let pod = cri.run_pod("web", &[ASKS], false).await.unwrap();
    let container = cri.create(&pod, "server", TELL, &[("OWN", "1")]).await.unwrap();
    cri.start(&container).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();
    served.end().await;
    tokio::time::timeout(PATIENCE, between).await.unwrap().unwrap();
}

/// How long a runtime waits for a plugin at each event, in its own measure. Prints it:
/// `cargo test --release -p portolan-nri --test containerd -- --ignored --nocapture what_being_asked_costs`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn what_being_asked_costs() {
    need_root!();
    let Some(machine) = Machine::start().await else { return };
    let (cri, served) = (&machine.cri, Served::begin(&machine).await);
    for i in 0..100 {
        let pod = cri.run_pod(&format!("pod-{i}"), &[ASKS], false).await.unwrap();
        let container = cri.create(&pod, "server", "exec sleep infinity", &[]).await.unwrap();
        cri.start(&container).await.unwrap();
        cri.remove_pod(&pod).await.unwrap();
    }
    let (mut sums, mut counts) = (Vec::new(), Vec::new());
    for line in machine.metrics().lines() {
        let Some((labels, value)) = line.rsplit_once(' ') else { continue };
        let Some((_, rest)) = labels.split_once("operation=\"") else { continue };
        let (Some((operation, _)), Ok(value)) = (rest.split_once('"'), value.parse::<f64>()) else {
            continue;
        };
        if labels.starts_with("containerd_nri_plugin_latency_seconds_sum") {
            sums.push((operation.to_owned(), value));
        } else if labels.starts_with("containerd_nri_plugin_latency_seconds_count") {
            counts.push(value);
        }
    }
    for ((operation, sum), count) in sums.iter().zip(counts) {
        println!("{operation:>20} {count:>4} times, {:>4.0} us each", sum / count * 1e6);
    }
    served.end().await;
}
