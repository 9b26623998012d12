//! A component that gives back what it gets.

pub(crate) const IDENTITY: &str = r#"(component
        
        (core module $m
            (memory (export "memory") 1)
            (global $top (mut i32) (i32.const 1024))
            
            (func $realloc (export "realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
    (global.set $top (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
    (local.set $at (global.get $top))
    (global.set $top (i32.add (global.get $top) (local.get 3)))
    (loop $more
        (if (i32.gt_u (global.get $top) (i32.mul (memory.size) (i32.const 65536)))
            (then (drop (memory.grow (i32.const 1))) (br $more))))
    (local.get $at))
            (func $compress (export "compress") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.store8 (i32.const 16) (i32.const 0))
    (i32.store (i32.const 20) (local.get 0)) (i32.store (i32.const 24) (local.get 1)) (i32.const 16))
            (func $decompress (export "decompress") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.store8 (i32.const 16) (i32.const 0))
    (i32.store (i32.const 20) (local.get 0)) (i32.store (i32.const 24) (local.get 1)) (i32.const 16))
        )
        (core instance $i (instantiate $m))
        (type $dtype (enum "bf16" "f16" "f32" "u16" "u8"))
        (type $direction (enum "forward" "backward"))
        (type $meta (record (field "dtype" $dtype) (field "shape" (list u32)) (field "direction" $direction)))
        (func $compress (param "data" (list u8)) (param "meta" $meta) (result (result (list u8) (error string)))
            (canon lift (core func $i "compress") (memory (core memory $i "memory")) (realloc (core func $i "realloc")) ))
        (func $decompress (param "data" (list u8)) (param "meta" $meta) (result (result (list u8) (error string)))
            (canon lift (core func $i "decompress") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
        (component $coder
            (type $dtype (enum "bf16" "f16" "f32" "u16" "u8"))
            (import "dtype-in" (type $dtype-in (eq $dtype)))
            (type $direction (enum "forward" "backward"))
            (import "direction-in" (type $direction-in (eq $direction)))
            (type $meta (record
                (field "dtype" $dtype-in) (field "shape" (list u32)) (field "direction" $direction-in)))
            (import "meta-in" (type $meta-in (eq $meta)))
            (import "compress-in" (func $compress
                (param "data" (list u8)) (param "meta" $meta-in) (result (result (list u8) (error string)))))
            (import "decompress-in" (func $decompress
                (param "data" (list u8)) (param "meta" $meta-in) (result (result (list u8) (error string)))))
            (export $dtype-out "dtype" (type $dtype))
            (export $direction-out "direction" (type $direction))
            (type $meta-named (record
                (field "dtype" $dtype-out) (field "shape" (list u32)) (field "direction" $direction-out)))
            (export $meta-out "meta" (type $meta-named))
            (export "compress" (func $compress) (func
                (param "data" (list u8)) (param "meta" $meta-out) (result (result (list u8) (error string)))))
            (export "decompress" (func $decompress) (func
                (param "data" (list u8)) (param "meta" $meta-out) (result (result (list u8) (error string)))))
        )
        (instance $coder (instantiate $coder
            (with "dtype-in" (type $dtype)) (with "direction-in" (type $direction)) (with "meta-in" (type $meta))
            (with "compress-in" (func $compress)) (with "decompress-in" (func $decompress))))
        (export "shoal:codec/coder@0.1.0" (instance $coder))
    )"#;
