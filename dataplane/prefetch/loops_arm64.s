#include "textflag.h"

// func elements(first unsafe.Pointer, size uintptr, indexes []uint32)
TEXT ·elements(SB), NOSPLIT, $0-40
	MOVD first+0(FP), R0
	MOVD size+8(FP), R1
	MOVD indexes_base+16(FP), R2
	MOVD indexes_len+24(FP), R3
	CBZ  R3, done

next:
	MOVWU.P 4(R2), R4
	MADD    R4, R0, R1, R5     // R0 + R4*R1
	PRFM    (R5), PLDL1KEEP
	SUB     $1, R3
	CBNZ    R3, next

done:
	RET

// func hashed(first unsafe.Pointer, size uintptr, mask uint64, hashes []uint64)
TEXT ·hashed(SB), NOSPLIT, $0-48
	MOVD first+0(FP), R0
	MOVD size+8(FP), R1
	MOVD mask+16(FP), R6
	MOVD hashes_base+24(FP), R2
	MOVD hashes_len+32(FP), R3
	CBZ  R3, done

next:
	MOVD.P 8(R2), R4
	AND    R6, R4
	MADD   R4, R0, R1, R5      // R0 + R4*R1
	PRFM   (R5), PLDL1KEEP
	SUB    $1, R3
	CBNZ   R3, next

done:
	RET
