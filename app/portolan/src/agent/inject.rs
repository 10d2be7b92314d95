//! What a container of a Pod with ports gets before it starts: variables, and a folder with a file. Pure.
//!
//! The folder is mounted and not the file: the file is replaced when something changes ([`super::tell`]), and a mount of
//! the file itself would show the old one for ever.

use std::path::Path;

use portolan_nri::{Container, ContainerAdjustment, Mount};

/// Where containers find the Pod's folder, read-only.
pub(crate) const FOLDER: &str = "/run/portolan";

/// The change to `container`: `variables`, and `folder` of the node at [`FOLDER`].
///
/// Variables of the image and of the manifest give way, as for a command of `portolan run`; a mount of the manifest
/// at the same place does not.
pub(crate) fn adjustment(
    variables: Vec<(String, String)>,
    folder: Option<&Path>,
    container: &Container,
) -> ContainerAdjustment {
    let taken = container.mounts.iter().any(|mount| mount.destination == Path::new(FOLDER));
    let folder = folder.filter(|_| !taken);
    ContainerAdjustment {
        env: variables,
        mounts: folder.map(|folder| Mount::read_only(folder, FOLDER)).into_iter().collect(),
        ..ContainerAdjustment::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON_NODE: &str = "/var/lib/portolan/pods/0d0f73";

    fn variables() -> Vec<(String, String)> {
        vec![("PORT".to_owned(), "20344".to_owned())]
    }

    #[test]
    fn a_container_gets_its_variables_and_the_folder_of_its_pod() {
        let adjustment = adjustment(variables(), Some(Path::new(ON_NODE)), &Container::default());
        assert_eq!(adjustment.env, variables());
        let [mount] = &adjustment.mounts[..] else { panic!("{adjustment:?}") };
        assert_eq!((mount.source.to_str(), mount.destination.to_str()), (Some(ON_NODE), Some(FOLDER)));
        assert!(mount.options.iter().any(|option| option == "ro"));
    }

    #[test]
    fn a_mount_of_the_manifest_stays() {
        let theirs = Mount { destination: FOLDER.into(), ..Mount::default() };
        let container = Container { mounts: vec![theirs], ..Container::default() };
        let adjustment = adjustment(variables(), Some(Path::new(ON_NODE)), &container);
        assert!(adjustment.mounts.is_empty());
        assert_eq!(adjustment.env, variables());
    }

    #[test]
    fn without_the_file_there_are_still_the_variables() {
        let adjustment = adjustment(variables(), None, &Container::default());
        assert!(adjustment.mounts.is_empty() && !adjustment.env.is_empty());
    }
}
