//! The memory of planes and tensors is zeroed, and in huge pages where the system has them.

use crate::engine::memory::zeroed;

#[test]
fn memory_of_any_length_is_zeroed() {
    for len in [0, 1, 1023, 5 << 20] {
        let mut floats = zeroed(len).unwrap();
        assert!(floats.len() == len && floats.iter().all(|&float| float == 0.0));
        floats.fill(1.0);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn large_memory_is_advised_to_take_huge_pages() {
    if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        println!("SKIPPED: huge pages, for this system has none");
        return;
    }
    let floats = zeroed(5 << 20).unwrap();
    let middle = floats[floats.len() / 2..].as_ptr() as usize;
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut is_ours = false;
    let flags = maps.lines().find_map(|line| {
        let bounds = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        let bounds = bounds.map(|(from, to)| [from, to].map(|hex| usize::from_str_radix(hex, 16)));
        if let Some([Ok(from), Ok(to)]) = bounds {
            is_ours = (from..to).contains(&middle);
        }
        line.strip_prefix("VmFlags:").filter(|_| is_ours)
    });
    let flags = flags.expect("the memory is mapped");
    assert!(flags.split_whitespace().any(|flag| flag == "hg"), "{flags}");
}
