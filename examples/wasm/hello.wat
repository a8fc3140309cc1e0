;; Greets its first parameter: "hello, <parameter>", or "hello, world" without one. WASI preview 1.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))

  (memory (export "memory") 2)

  ;; 0: count and size of the arguments; 16: three texts to write; 64 on: words; 1024: pointers to the arguments;
  ;; 8192 on: the arguments
  (data (i32.const 64) "hello, ")
  (data (i32.const 72) "world")
  (data (i32.const 80) "\n")

  (func $length (param $text i32) (result i32)
    (local $end i32)
    (local.set $end (local.get $text))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (i32.load8_u (local.get $end))))
        (local.set $end (i32.add (local.get $end) (i32.const 1)))
        (br $next)))
    (i32.sub (local.get $end) (local.get $text)))

  (func $text (param $at i32) (param $start i32) (param $length i32)
    (i32.store (local.get $at) (local.get $start))
    (i32.store offset=4 (local.get $at) (local.get $length)))

  (func (export "_start")
    (local $name i32)
    (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
    ;; More than 1000 arguments, or 64 KiB of them, would not fit.
    (if (i32.or (i32.gt_u (i32.load (i32.const 0)) (i32.const 1000))
                (i32.gt_u (i32.load (i32.const 4)) (i32.const 65536)))
      (then (call $proc_exit (i32.const 2))))
    (call $text (i32.const 16) (i32.const 64) (i32.const 7))
    (call $text (i32.const 24) (i32.const 72) (i32.const 5))
    (call $text (i32.const 32) (i32.const 80) (i32.const 1))
    (if (i32.gt_u (i32.load (i32.const 0)) (i32.const 1))
      (then
        (drop (call $args_get (i32.const 1024) (i32.const 8192)))
        (local.set $name (i32.load (i32.const 1028)))
        (call $text (i32.const 24) (local.get $name) (call $length (local.get $name)))))
    (if (call $fd_write (i32.const 1) (i32.const 16) (i32.const 3) (i32.const 8))
      (then (call $proc_exit (i32.const 1))))))
