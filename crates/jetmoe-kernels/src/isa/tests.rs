use super::*;

/// Prints what the other tests cover here: `cargo test -p jetmoe-kernels available -- --nocapture`.
#[test]
#[allow(clippy::print_stdout, reason = "instruction sets differ from machine to machine")]
fn every_available_instruction_set_is_selected_by_its_name() {
    for isa in Isa::available() {
        println!("this processor has {isa}");
        assert_eq!(Isa::from_name(&isa.to_string()), Ok(isa));
    }
}

#[test]
fn plain_is_another_name_of_generic() {
    assert_eq!(Isa::from_name("plain"), Ok(Isa::Generic));
    assert_eq!(Isa::from_name("generic"), Ok(Isa::Generic));
}

#[test]
fn the_best_instruction_set_is_the_last_supported_one_in_the_measured_order() {
    assert_eq!(
        Isa::ALL.map(|isa| isa.to_string()),
        ["generic", "avx2", "avxvnni", "avx512vnni", "amx", "neon", "neoni8mm"]
    );
    assert_eq!(Isa::available().first(), Some(&Isa::Generic));
    assert_eq!(Isa::available().last(), Some(&Isa::best()));
    // AMX computes experts with few rows by AVX-512.
    assert!(!Isa::Amx.is_supported() || Isa::Avx512Vnni.is_supported());
}

#[test]
fn every_instruction_set_but_amx_is_batch_invariant() {
    for isa in Isa::ALL {
        let expected = if isa == Isa::Amx { Isa::Avx512Vnni } else { isa };
        assert_eq!(isa.batch_invariant(), expected);
    }
}
