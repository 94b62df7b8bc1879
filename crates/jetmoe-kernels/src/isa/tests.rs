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
fn amx_is_never_the_best_because_avx512vnni_is_faster_and_always_there_too() {
    let place = |isa| Isa::ALL.iter().position(|other| *other == isa);
    assert!(place(Isa::Amx) < place(Isa::Avx512Vnni));
    assert_eq!(place(Isa::Generic), Some(0), "the slowest");
    assert_ne!(Isa::best(), Isa::Amx);
    if Isa::Amx.is_supported() {
        assert!(Isa::Avx512Vnni.is_supported());
    }
}
