//! What we print, nft loads, and it is the same again.

use portolan_nft::{Kernel, Nft, Ruleset};
use portolan_testkit::{need_root, net::private_namespace, nft};

use crate::cases::{cases, ruleset};

fn bare(mut ruleset: Ruleset) -> Ruleset {
    ruleset.sort();
    for rule in ruleset.chains.iter_mut().flat_map(|filled| &mut filled.rules) {
        rule.handle = None;
        // See `bytecode`: a swap of one byte, which nft adds.
        rule.expressions.retain(
            |one| !matches!(one, portolan_nft::Expression::Byteorder(byteorder) if byteorder.length == 1),
        );
    }
    ruleset
}

#[test]
fn nft_loads_what_we_print_as_the_same_rules() {
    need_root!();
    private_namespace(|| {
        let wanted = ruleset("portolan");
        nft::load(&wanted.to_string());
        let loaded = bare(Kernel::open().unwrap().dump(&wanted.table).unwrap().unwrap());
        let wanted = bare(wanted);
        for (number, case) in cases().iter().enumerate() {
            let chain = format!("case{number}");
            let rule = |ruleset: &Ruleset| ruleset.find_chain(&chain).unwrap().rules[0].clone();
            assert_eq!(rule(&loaded), rule(&wanted), "{}", case.text);
        }
        assert_eq!(loaded.sets, wanted.sets);
    });
}
