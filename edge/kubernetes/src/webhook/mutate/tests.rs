use super::*;
use crate::webhook::review::{Answer, Denied, Review};

/// Asks for what the annotation `n` says; a Pod with `n: many` is refused.
fn counting() -> Count {
    Arc::new(|pod| match pod.annotations.get("n").map(|text| text.parse()) {
        None => Ok(BTreeMap::new()),
        Some(Ok(number)) => Ok(BTreeMap::from([("default".parse().unwrap(), number)])),
        Some(Err(_)) => Err("n is no number".to_owned()),
    })
}

fn request(object: Value) -> Request {
    let review = json!({"request": {
        "uid": "u", "operation": "CREATE", "namespace": "games",
        "resource": {"group": "", "version": "v1", "resource": "pods"}, "object": object
    }});
    serde_json::from_value::<Review>(review).unwrap().request.unwrap()
}

async fn review(object: Value) -> Verdict {
    Mutate::new(counting()).review(&request(object)).await
}

fn pod(resources: Value) -> Value {
    json!({"metadata": {"generateName": "a-", "annotations": {"n": "3"}},
        "spec": {"containers": [{"name": "a", "resources": resources}, {"name": "b"}]}})
}

#[tokio::test]
async fn a_pod_that_asks_gets_requests_and_limits_for_its_ports() {
    let verdict = review(pod(json!({}))).await;
    let three = json!({"ports.portolan.dev/default": "3"});
    assert_eq!(
        verdict.patch,
        [
            json!({"op": "add", "path": "/spec/containers/0/resources/requests", "value": three}),
            json!({"op": "add", "path": "/spec/containers/0/resources/limits", "value": three})
        ]
    );
    let verdict =
        review(json!({"metadata": {"annotations": {"n": "3"}}, "spec": {"containers": [{"name": "a"}]}}))
            .await;
    assert_eq!(
        verdict.patch,
        [
            json!({"op": "add", "path": "/spec/containers/0/resources", "value": {"requests": three, "limits": three}})
        ]
    );
}

#[tokio::test]
async fn what_a_container_has_already_is_kept_beside_it() {
    let verdict = review(pod(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}))).await;
    let paths: Vec<_> = verdict.patch.iter().map(|operation| operation["path"].as_str().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "/spec/containers/0/resources/requests/ports.portolan.dev~1default",
            "/spec/containers/0/resources/limits/ports.portolan.dev~1default"
        ]
    );
}

#[tokio::test]
async fn a_second_look_changes_nothing_and_what_people_wrote_is_completed() {
    let all =
        json!({"requests": {"ports.portolan.dev/default": "3"}, "limits": {"ports.portolan.dev/default": 3}});
    assert_eq!(review(pod(all)).await, Verdict::default());
    let some = json!({"requests": {"ports.portolan.dev/default": "1"}, "limits": {"ports.portolan.dev/default": "1"}});
    assert!(review(pod(some)).await.patch.iter().all(|operation| operation["value"] == "3"));
    let mut elsewhere = pod(json!({}));
    elsewhere["spec"]["containers"][1]["resources"] = json!({"limits": {"ports.portolan.dev/default": "3"}});
    assert_eq!(review(elsewhere).await, Verdict::default());
}

#[tokio::test]
async fn a_pod_that_does_not_ask_is_never_touched_whatever_is_in_it() {
    for object in [
        json!({"metadata": {}, "spec": {"containers": [{"name": "a", "somethingNew": {"from": "2040"}}]}}),
        json!({"spec": {"containers": "none", "schedulingGates": 7}}),
        json!({"metadata": {"annotations": null}, "spec": {"containers": [{"name": "a", "ports": "new shape"}]}}),
        json!(null),
    ] {
        assert_eq!(review(object.clone()).await, Verdict::default(), "{object}");
    }
    let mut update = request(pod(json!({})));
    update.operation = "UPDATE".to_owned();
    assert_eq!(Mutate::new(counting()).review(&update).await, Verdict::default());
    let mut bind = request(pod(json!({})));
    bind.sub_resource = Some("binding".to_owned());
    assert_eq!(Mutate::new(counting()).review(&bind).await, Verdict::default());
}

#[tokio::test]
async fn a_pod_that_asks_for_nonsense_is_denied_with_the_reason() {
    let verdict =
        review(json!({"metadata": {"annotations": {"n": "many"}}, "spec": {"containers": []}})).await;
    assert_eq!(verdict.denied, Some(Denied { code: 422, message: "n is no number".to_owned() }));
    let answer = serde_json::to_value(Answer::new("u".to_owned(), verdict)).unwrap();
    assert_eq!(
        answer,
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": {"uid": "u", "allowed": false, "status": {"code": 422, "message": "n is no number"}}})
    );
}

#[tokio::test]
async fn an_answer_has_its_patch_in_base_64_and_none_when_nothing_changes() {
    let verdict = Verdict { patch: vec![json!({"op": "test"})], ..Verdict::default() };
    let answer = serde_json::to_value(Answer::new("u".to_owned(), verdict)).unwrap();
    assert_eq!(answer["response"]["patch"], "W3sib3AiOiJ0ZXN0In1d");
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    let answer = serde_json::to_value(Answer::new("u".to_owned(), Verdict::default())).unwrap();
    assert_eq!(answer["response"], json!({"uid": "u", "allowed": true}));
}

#[tokio::test]
async fn annotations_are_added_to_who_asks_and_never_overwritten() {
    let wanted =
        BTreeMap::from([("a.example/x".to_owned(), "1".to_owned()), ("n".to_owned(), "7".to_owned())]);
    let mutate = Mutate::new(counting()).with_annotations(wanted);
    let verdict = mutate.review(&request(pod(json!({})))).await;
    let annotations: Vec<_> =
        verdict.patch.iter().filter(|one| one["path"].as_str().unwrap().starts_with("/metadata")).collect();
    assert_eq!(
        annotations,
        [&json!({"op": "add", "path": "/metadata/annotations/a.example~1x", "value": "1"})]
    );
    let plain = json!({"metadata": {}, "spec": {"containers": [{"name": "a"}]}});
    assert_eq!(mutate.review(&request(plain)).await, Verdict::default());
}
