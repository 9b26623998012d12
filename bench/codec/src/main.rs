use codec::{CodecId, DType, Limits, TensorRef, decode_into_at, encode_at, Level};
fn now() -> f64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t) };
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let codecs: Vec<CodecId> = args[0].split(',').map(|s| s.parse().unwrap()).collect();
    let all = std::env::var("ALL").is_ok();
    for path in &args[1..] {
        let raw = std::fs::read(path).unwrap();
        let text = String::from_utf8_lossy(&raw[10..128]).to_string();
        let s = text.split("'shape': (").nth(1).unwrap().split(')').next().unwrap();
        let shape: Vec<usize> = s.split(',').filter_map(|x| x.trim().parse().ok()).collect();
        let data = &raw[128..];
        let t = TensorRef::new(DType::Bf16, &shape, data).unwrap();
        print!("{:24}", path.rsplit('/').next().unwrap());
        let mut levels = Level::available();
        if !all { levels = vec![Level::detect()]; }
        for &c in &codecs { for &level in &levels {
            let mut out = Vec::new();
            let mut dec = Vec::new();
            let lim = Limits { verify_checksum: std::env::var("SUM").is_ok(), ..Limits::default() };
            let (mut e, mut d) = (vec![], vec![]);
            for _ in 0..9 {
                out.clear();
                let a = now();
                encode_at(level, c, t, &mut out).unwrap();
                let b = now();
                decode_into_at(level, &out, &lim, &codec::Shared::new(), &mut dec).unwrap();
                let f = now();
                e.push(b - a);
                d.push(f - b);
            }
            assert!(dec == data);
            e.sort_by(f64::total_cmp);
            d.sort_by(f64::total_cmp);
            let g = |x: f64| data.len() as f64 / x / 1e9;
            print!(" | {c} {level} {:.4} {:6.2} {:6.2}", data.len() as f64 / out.len() as f64, g(e[e.len() / 2]), g(d[d.len() / 2]));
        }}
        println!();
    }
}
