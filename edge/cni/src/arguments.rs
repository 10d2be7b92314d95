//! `CNI_ARGS`: `KEY=VALUE` pairs between semicolons, by which a runtime names the Pod.

use portolan_model::PodRef;

/// The Pod, when the runtime serves Kubernetes: `K8S_POD_NAMESPACE` and `K8S_POD_NAME`, with `K8S_POD_UID` of newer
/// runtimes. The name comes from the [convention](https://github.com/containernetworking/cni/blob/main/CONVENTIONS.md);
/// keys of other plugins are none of our business, whether `IgnoreUnknown` says so or not.
pub(crate) fn pod(arguments: &str) -> Option<PodRef> {
    let value = |key: &str| {
        let pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
        let mut found = pairs.filter(|(k, v)| k.trim() == key && !v.is_empty()).map(|(_, v)| v.to_owned());
        // The last one wins, as it does where runtimes put the pairs into a map.
        found.next_back()
    };
    Some(PodRef {
        namespace: value("K8S_POD_NAMESPACE")?,
        name: value("K8S_POD_NAME")?,
        uid: value("K8S_POD_UID"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_is_named_by_kubernetes_arguments() {
        let arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=games;K8S_POD_NAME=lobby-0;\
                         K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=1-2";
        let expected = PodRef { namespace: "games".into(), name: "lobby-0".into(), uid: Some("1-2".into()) };
        assert_eq!(pod(arguments), Some(expected));
    }

    #[test]
    fn other_runtimes_name_no_pod() {
        for arguments in
            ["", "FOO=BAR;ABC=123", "K8S_POD_NAME=x", "K8S_POD_NAMESPACE=;K8S_POD_NAME=x", "nonsense"]
        {
            assert_eq!(pod(arguments), None, "{arguments}");
        }
    }
}
