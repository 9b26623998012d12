use codec::*;
fn now() -> f64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t) };
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}
fn main() {
    for path in std::env::args().skip(1) {
        let raw = std::fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&raw[10..128]).to_string();
        let s = text.split("'shape': (").nth(1).unwrap().split(')').next().unwrap();
        let shape: Vec<usize> = s.split(',').filter_map(|x| x.trim().parse().ok()).collect();
        let data = &raw[128..];
        let h = shape[0] / 2;
        let w = shape[1] * 2;
        let sh = [h, shape[1]];
        let first = TensorRef::new(DType::Bf16, &sh, &data[..h * w]).unwrap();
        let second = TensorRef::new(DType::Bf16, &sh, &data[h * w..]).unwrap();
        let a = now();
        let p = Predictor::learn(&[first]).unwrap();
        let lt = now() - a;
        let p = Predictor::from_bytes(p.to_bytes()).unwrap();
        let mut shared = Shared::new();
        shared.add_predictor(std::sync::Arc::new(p.clone()));
        print!("{:24} learn {lt:.2}s side {}", path.rsplit('/').next().unwrap(), p.to_bytes().len());
        for level in Level::available() {
            let mut out = vec![];
            let mut dec = vec![];
            let (mut e, mut d) = (vec![], vec![]);
            for _ in 0..3 {
                out.clear();
                let a = now();
                encode_predictive(level, &p, second, &mut out).unwrap();
                let b = now();
                decode_into_at(level, &out, &Limits::default(), &shared, &mut dec).unwrap();
                let f = now();
                e.push(b - a);
                d.push(f - b);
            }
            assert!(dec == second.bytes());
            e.sort_by(f64::total_cmp);
            d.sort_by(f64::total_cmp);
            let g = |x: f64| (h * w) as f64 / x / 1e9;
            print!(" | {level} {} {:.4} {:6.3} {:6.3}", Header::parse(&out, &Limits::default()).unwrap().codec, (h * w) as f64 / out.len() as f64, g(e[1]), g(d[1]));
        }
        println!();
    }
}
