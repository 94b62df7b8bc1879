use super::*;

fn listed(names: &[&str]) -> Option<String> {
    list_names(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
}

#[test]
fn a_handful_of_names_is_listed_and_the_others_are_counted() {
    assert_eq!(listed(&[]), None);
    assert_eq!(listed(&["a"]).unwrap(), "a");
    assert_eq!(listed(&["a", "b", "c", "d", "e"]).unwrap(), "a, b, c, d, e");
    assert_eq!(listed(&["a", "b", "c", "d", "e", "f", "g"]).unwrap(), "a, b, c, d, e and 2 more");
}

#[test]
fn a_name_stays_in_its_line_whatever_it_holds() {
    assert_eq!(listed(&["a\nb\u{1b}[31m"]).unwrap(), "a\\nb\\u{1b}[31m");
    assert_eq!(listed(&["x".repeat(1000).as_str()]).unwrap(), "x".repeat(40));
}
