;; Counts the lines of /inputs/data.txt; prints the number and writes it to /outputs/lines.txt. WASI preview 1.
;; Exit codes: 2 no input, 3 reading failed, 4 no output.
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))

  (memory (export "memory") 2)

  ;; 0: a descriptor; 8: one text to read or write; 16: how much was; 32, 64: paths; 127 down: digits;
  ;; 4096 to 65535: what was read
  (data (i32.const 32) "inputs/data.txt")
  (data (i32.const 64) "outputs/lines.txt")

  ;; Opens a path below the first directory that the host gives, which is / (descriptor 3).
  (func $open (param $path i32) (param $length i32) (param $create i32) (param $rights i64) (param $code i32)
    (result i32)
    (if (call $path_open (i32.const 3) (i32.const 0) (local.get $path) (local.get $length)
          (local.get $create) (local.get $rights) (i64.const 0) (i32.const 0) (i32.const 0))
      (then (call $proc_exit (local.get $code))))
    (i32.load (i32.const 0)))

  (func $write (param $descriptor i32) (param $start i32) (param $length i32)
    (i32.store (i32.const 8) (local.get $start))
    (i32.store (i32.const 12) (local.get $length))
    (if (call $fd_write (local.get $descriptor) (i32.const 8) (i32.const 1) (i32.const 16))
      (then (call $proc_exit (i32.const 4)))))

  (func $count (param $descriptor i32) (result i64)
    (local $lines i64)
    (local $at i32)
    (local $end i32)
    (block $done
      (loop $read
        (i32.store (i32.const 8) (i32.const 4096))
        (i32.store (i32.const 12) (i32.const 61440))
        (if (call $fd_read (local.get $descriptor) (i32.const 8) (i32.const 1) (i32.const 16))
          (then (call $proc_exit (i32.const 3))))
        (br_if $done (i32.eqz (i32.load (i32.const 16))))
        (local.set $at (i32.const 4096))
        (local.set $end (i32.add (local.get $at) (i32.load (i32.const 16))))
        (loop $byte
          (local.set $lines (i64.add (local.get $lines)
            (i64.extend_i32_u (i32.eq (i32.load8_u (local.get $at)) (i32.const 10)))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br_if $byte (i32.lt_u (local.get $at) (local.get $end))))
        (br $read)))
    (local.get $lines))

  ;; Writes the number and a line end so that they end at 128; returns where they begin.
  (func $digits (param $number i64) (result i32)
    (local $at i32)
    (local.set $at (i32.const 127))
    (i32.store8 (local.get $at) (i32.const 10))
    (loop $digit
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at)
        (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $number) (i64.const 10)))))
      (local.set $number (i64.div_u (local.get $number) (i64.const 10)))
      (br_if $digit (i64.ne (local.get $number) (i64.const 0))))
    (local.get $at))

  (func (export "_start")
    (local $input i32)
    (local $output i32)
    (local $text i32)
    (local.set $input (call $open (i32.const 32) (i32.const 15) (i32.const 0) (i64.const 2) (i32.const 2)))
    (local.set $text (call $digits (call $count (local.get $input))))
    (drop (call $fd_close (local.get $input)))
    ;; 9: make the file if it is not there, empty it if it is.
    (local.set $output (call $open (i32.const 64) (i32.const 17) (i32.const 9) (i64.const 64) (i32.const 4)))
    (call $write (local.get $output) (local.get $text) (i32.sub (i32.const 128) (local.get $text)))
    (drop (call $fd_close (local.get $output)))
    (call $write (i32.const 1) (local.get $text) (i32.sub (i32.const 128) (local.get $text)))))
