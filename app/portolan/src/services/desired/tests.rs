use std::{sync::Arc, time::SystemTime};

use portolan_kubernetes::services_from_yaml;
use portolan_model::Instance;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;

use super::*;

fn instance(number: usize, group: usize, passing: bool) -> Arc<Instance> {
    let value = json!({
        "name": format!("i{number}"), "incarnation": "1", "service": "web", "node": "n",
        "addresses": [format!("192.0.{}.{}", number / 200, number % 200 + 1)],
        "ports": [{"name": "http", "protocols": ["tcp"], "port": (20_000 + number).to_string()}],
        "labels": {"group": group.to_string()}, "state": if passing { "passing" } else { "critical" },
        "since": "2026-01-01T00:00:00Z", "registered": "2026-01-01T00:00:00Z",
    });
    Arc::new(serde_json::from_value(value).unwrap())
}

fn services(count: usize) -> Vec<(Written, Given)> {
    let text = |n: usize| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: s{n}}}, spec: {{clusterIP: 10.0.{}.{}, selector: {{group: \"{n}\"}}, ports: [{{port: 80, targetPort: http}}]}}}}",
            n / 200,
            n % 200 + 1
        )
    };
    let read = |n: usize| services_from_yaml(&text(n)).unwrap().services.remove(0);
    let written = |n| Written { service: read(n), place: "a".to_owned() };
    let all = (0..count).map(written).map(|written| {
        let addresses = written.service.service.cluster_addresses.clone();
        (written, Given { addresses, ..Given::default() })
    });
    all.collect()
}

fn admitted(all: &[(Written, Given)]) -> Vec<Admitted<'_>> {
    let one = |(written, given)| Admitted { written, given, since: SystemTime::UNIX_EPOCH, problem: None };
    all.iter().map(|(written, given)| one((written, given))).collect()
}

/// What is served after any number of changes is what a start would serve, and only Services that select something of
/// what has changed are looked at.
#[test]
fn looking_only_at_what_has_changed_ends_where_looking_at_everything_does() {
    let mut rng = StdRng::seed_from_u64(5);
    let services = services(12);
    let all = admitted(&services);
    let mut instances: Vec<_> = (0..30).map(|n| instance(n, n % 12, true)).collect();
    let mut world = World::new(instances.clone(), vec![]);
    let mut now = desired(&all, [].iter(), &world);
    for step in 0..300 {
        match rng.random_range(0..4) {
            0 if instances.len() > 1 => drop(instances.swap_remove(rng.random_range(0..instances.len()))),
            1 => instances.push(instance(30 + step, rng.random_range(0..14), true)),
            _ => {
                let place = rng.random_range(0..instances.len());
                let number = instances[place].key.name.as_str()[1..].parse().unwrap();
                instances[place] = instance(number, rng.random_range(0..14), rng.random_bool(0.7));
            }
        }
        let next = World::new(instances.clone(), vec![]);
        let changed = next.differences(&world);
        assert!(changed.len() <= 2, "{changed:?}");
        let concerned = |one: &&Admitted<'_>| {
            changed.iter().any(|instance| endpoints::selects(&one.written.service.selector, instance))
        };
        let some: Vec<Admitted<'_>> = admitted(&services).into_iter().filter(|one| concerned(&one)).collect();
        assert!(some.len() <= 2);
        let before = now.slices.clone();
        let renewed = now.renew(&some, &next);
        // Told of are exactly the slices that are other ones.
        let differs = |name: &&ObjectName| before.get(*name) != now.slices.get(*name);
        let told: std::collections::BTreeSet<_> =
            renewed.gone.iter().chain(renewed.set.iter().map(|slice| &slice.name)).collect();
        let other: std::collections::BTreeSet<_> =
            before.keys().chain(now.slices.keys()).filter(differs).collect();
        assert_eq!(told, other, "step {step}");
        let whole = desired(&all, [].iter(), &next);
        assert_eq!((&now.slices, &now.services), (&whole.slices, &whole.services), "step {step}");
        assert_eq!((&now.shown, &now.names), (&whole.shown, &whole.names), "step {step}");
        world = next;
    }
}
